"""RemotePolicy against a real server: the same answers as the policy itself, and a server that goes
away and comes back."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.checkpoint import (
    Calibration,
    TrainingRecord,
    load_checkpoint,
    save_checkpoint,
    write_calibration,
)
from models.config import SamplerConfig, preset
from models.model import EBVLA
from models.policy import Policy
from models.types import Observation
from studio.events import Advance, Outcome, Pause, Run, Status
from studio.helm import PolicyAway
from studio.loop import ControlLoop
from studio.policies import describe
from studio.remote import RemotePolicy
from studio.serving import PolicyServer, ServerThread
from tests.helpers import free_port, wait_for

SAMPLER = SamplerConfig(steps=3, chains=2)
BACKOFF = (0.05, 0.1, 0.2)


def observation(seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {c: rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for c in ("agentview", "wrist")}
    return Observation(images, rng.normal(size=8).astype(np.float32), "pick up the milk")


@pytest.fixture(scope="module")
def policy(debug_checkpoint, tmp_path_factory):
    """With a calibration, which a server passes on."""
    statistics = load_checkpoint(debug_checkpoint).statistics
    folder = tmp_path_factory.mktemp("run") / "best"
    torch.manual_seed(1)
    save_checkpoint(folder, EBVLA(preset("debug")), statistics, TrainingRecord(("libero_object",)))
    write_calibration(folder, Calibration(5.0, 0.5))
    return Policy.from_pretrained(folder, device="cpu")


@pytest.fixture
def server(policy):
    server = ServerThread(PolicyServer(policy), "127.0.0.1", 0)
    yield server
    server.stop()


@pytest.fixture
def remote(server, monkeypatch):
    monkeypatch.setattr("studio.remote.BACKOFF_S", BACKOFF)
    remote = RemotePolicy(f"ws://127.0.0.1:{server.port}")
    yield remote
    remote.close()


def again(policy, port: int) -> ServerThread:
    return ServerThread(PolicyServer(policy), "127.0.0.1", port)


def test_the_same_plan(remote, policy):
    far, near = (p.plan(observation(), SAMPLER, seed=2**32 - 1) for p in (remote, policy))
    np.testing.assert_array_equal(far.actions, near.actions)
    for name in ("actions", "energies", "timestep_energies", "grad_norms", "step_sizes"):
        np.testing.assert_array_equal(getattr(far.trace, name), getattr(near.trace, name))
    np.testing.assert_array_equal(far.readout, near.readout)
    assert (far.chain, far.sampler, far.seed) == (near.chain, SAMPLER, 2**32 - 1)
    assert far.energy_gap == near.energy_gap and far.final_energy == near.final_energy
    assert far.round_trip_s >= far.latency_s > 0 and near.round_trip_s is None


def test_what_can_be_looked_into(remote, policy):
    obs, centre = observation(1), np.full((8, 7), 0.2, np.float32)
    far, near = (p.explore(obs, SAMPLER, seed=3) for p in (remote, policy))
    np.testing.assert_array_equal(far.energies, near.energies)
    for a, b in zip(*(p.energies(obs, centre[None]) for p in (remote, policy)), strict=True):
        np.testing.assert_array_equal(a, b)
    far, near = (p.slice_2d(obs, centre, 2, (0, 6), (1.0, 2.0), 6) for p in (remote, policy))
    assert (far.timestep, far.dims) == (near.timestep, near.dims) == (2, (0, 6))
    for name in ("u", "v", "energies", "centre"):
        np.testing.assert_array_equal(getattr(far, name), getattr(near, name))
    np.testing.assert_allclose(remote.denormalize(remote.normalize(centre)), centre, atol=1e-6)


def test_who_is_served(remote, policy):
    assert remote.config == policy.config and remote.calibration == Calibration(5.0, 0.5)
    far, near = describe(remote), describe(policy)
    assert far.pop("server") == remote.url and near.pop("server") == ""
    assert far == near and far["name"].endswith("/best")


def test_a_batch_and_many_threads(remote, policy):
    observations, seeds = [observation(i) for i in range(6)], list(range(6))
    plans = remote.plan_batch(observations, SAMPLER, seeds)
    for obs, seed, plan in zip(observations, seeds, plans, strict=True):
        assert plan.observation is obs and plan.seed == seed
        np.testing.assert_allclose(plan.actions, policy.plan(obs, SAMPLER, seed).actions, atol=1e-4)


def test_a_batch_larger_than_the_servers_queue(policy, monkeypatch):
    monkeypatch.setattr("studio.remote.BACKOFF_S", BACKOFF)
    server = ServerThread(PolicyServer(policy, max_queue=1), "127.0.0.1", 0)
    remote = RemotePolicy(f"ws://127.0.0.1:{server.port}")
    plans = remote.plan_batch([observation(i) for i in range(5)], SAMPLER, range(5))
    assert [plan.seed for plan in plans] == list(range(5))
    remote.close()
    server.stop()


def test_what_a_url_keeps_secret_is_shown_to_nobody(server):
    remote = RemotePolicy(f"ws://me:secret@127.0.0.1:{server.port}/?token=secret")
    assert remote.url == remote.checkpoint.server == f"ws://127.0.0.1:{server.port}/"
    server.stop()
    with pytest.raises(PolicyAway) as away:
        remote.plan(observation(), SAMPLER)
    assert "secret" not in str(away.value)
    remote.close()


def test_bad_requests_are_value_errors(remote):
    with pytest.raises(ValueError, match="policy server says: landscape: the grid"):
        remote.slice_2d(observation(), np.zeros((8, 7), np.float32), grid=1000)
    with pytest.raises(ValueError, match="finite numbers"):
        remote.energies(observation(), np.full((1, 8, 7), np.nan, np.float32))


def test_a_server_that_fails_is_asked_once_more(remote, policy, monkeypatch):
    asked, whole = [], policy.plan_batch

    def faulty(*arguments):
        asked.append(arguments)
        if len(asked) in faults:
            raise RuntimeError("out of memory")
        return whole(*arguments)

    monkeypatch.setattr(policy, "plan_batch", faulty)
    faults = {1}
    assert remote.plan(observation(), SAMPLER).actions.shape == (8, 7) and len(asked) == 2
    faults = {3, 4}
    with pytest.raises(RuntimeError, match="policy server failed: RuntimeError: out of memory"):
        remote.plan(observation(), SAMPLER)
    assert remote.plan(observation(), SAMPLER).actions.shape == (8, 7)


def test_a_server_that_is_full_says_so(server, monkeypatch):
    monkeypatch.setattr("studio.serving.MAX_CLIENTS", 0)
    monkeypatch.setattr("studio.remote.FIRST_S", 0)
    with pytest.raises(ConnectionError, match=r"is busy: 0 clients are connected"):
        RemotePolicy(f"ws://127.0.0.1:{server.port}")


def test_a_slice_that_nobody_wants_any_more(remote, policy, monkeypatch):
    begun, stopped = threading.Event(), threading.Event()

    def endless(*_, stop, **__):
        begun.set()
        wait_for(stop)
        stopped.set()
        raise InterruptedError

    monkeypatch.setattr(policy, "slice_2d", endless, raising=False)
    with pytest.raises(InterruptedError):
        remote.slice_2d(observation(), np.zeros((8, 7), np.float32), stop=begun.is_set)
    assert stopped.wait(120)  # there, too
    assert remote.plan(observation(), SAMPLER).actions.shape == (8, 7)


def test_a_server_that_freezes_is_away_soon(server, monkeypatch):
    monkeypatch.setattr("studio.remote.BACKOFF_S", BACKOFF)
    thaw = threading.Event()
    with monkeypatch.context() as hasty:
        hasty.setattr("studio.remote.PING_S", 0.5)
        hasty.setattr("studio.remote.PONG_S", 0.5)
        remote = RemotePolicy(f"ws://127.0.0.1:{server.port}")
        server._loop.call_soon_threadsafe(thaw.wait, 30)
        hasty.setattr("studio.remote.OPEN_S", 1)
        with pytest.raises(PolicyAway, match="No policy server answers"):
            remote.plan(observation(), SAMPLER)
    thaw.set()

    def answers() -> bool:
        try:
            return remote.plan(observation(), SAMPLER).actions.shape == (8, 7)
        except PolicyAway:  # too early for an attempt
            return False

    wait_for(answers)
    remote.close()


def test_a_server_behind_a_server_waits_for_it(remote, server):
    """A studio that is driven from afar and serves the policy on."""
    behind = ServerThread(PolicyServer(remote), "127.0.0.1", 0)
    far = RemotePolicy(f"ws://127.0.0.1:{behind.port}")
    assert far.plan(observation(), SAMPLER).actions.shape == (8, 7)
    server.stop()
    with pytest.raises(PolicyAway, match="No policy server answers"):
        far.plan(observation(), SAMPLER)
    far.close()
    behind.stop()


def test_a_server_that_restarts_between_two_plans(remote, server, policy):
    before = remote.plan(observation(), SAMPLER)
    server.stop()
    back = again(policy, server.port)
    np.testing.assert_array_equal(remote.plan(observation(), SAMPLER).actions, before.actions)
    back.stop()


def test_a_server_that_is_away_says_so_until_it_is_back(remote, server, policy, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr("studio.remote.time", clock)
    server.stop()
    waits = []
    for _ in range(3):
        with pytest.raises(PolicyAway, match=r"Start one there.*the scene goes on") as away:
            remote.plan(observation(), SAMPLER)
        waits.append(away.value.retry_s)
        now[0] += waits[-1] / 2
        with pytest.raises(PolicyAway) as early:
            remote.plan(observation(), SAMPLER)
        assert early.value.retry_s == pytest.approx(waits[-1] / 2)  # no attempt was made
        now[0] += waits[-1]
    assert waits == list(BACKOFF)
    back = again(policy, server.port)
    assert remote.plan(observation(), SAMPLER).actions.shape == (8, 7)
    back.stop()


def test_another_checkpoint_at_the_same_address(remote, server, debug_checkpoint):
    other = Policy.from_pretrained(debug_checkpoint, device="cpu")
    server.stop()
    back = again(other, server.port)
    with pytest.raises(ValueError, match="serves another checkpoint now"):
        remote.plan(observation(), SAMPLER)
    back.stop()


def test_a_scene_waits_for_its_server_and_goes_on(remote, server, policy, point_mass, listener):
    loop = ControlLoop(point_mass, remote, [listener], hz=0)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    loop.submit(Advance(9))
    wait_for(lambda: loop.state.step == 9)
    server.stop()
    loop.submit(Run())
    wait_for(lambda: "No policy server answers" in loop.state.message)
    assert (loop.state.status, loop.state.step) == (Status.RUNNING, 16)  # the chunk was finished
    loop.submit(Pause())  # the page is not held up
    wait_for(lambda: loop.state.status is Status.PAUSED)
    loop.submit(Run())
    wait_for(lambda: loop.state.status is Status.RUNNING)
    assert loop.state.step == 16
    back = again(policy, server.port)
    wait_for(lambda: loop.state.status is Status.ENDED)
    assert (loop.state.outcome, loop.state.message) == (Outcome.TIMEOUT, "")
    assert len(listener.of("on_plan")) == 5 and len(listener.of("on_step")) == 40
    loop.close()
    thread.join(10)
    back.stop()


def test_a_server_that_starts_late(policy, monkeypatch):
    now, started, port = [0.0], [], free_port()

    def slept(seconds: float) -> None:
        now[0] += seconds
        started.append(again(policy, port))

    clock = {"monotonic": lambda: now[0], "perf_counter": time.perf_counter, "sleep": slept}
    monkeypatch.setattr("studio.remote.time", SimpleNamespace(**clock))
    remote = RemotePolicy(f"ws://127.0.0.1:{port}")
    assert remote.plan(observation(), SAMPLER).actions.shape == (8, 7)
    remote.close()
    (server,) = started
    server.stop()


def test_no_server_at_all(monkeypatch):
    monkeypatch.setattr("studio.remote.FIRST_S", 0)
    with pytest.raises(ConnectionError, match=r"python -m studio\.serve"):
        RemotePolicy("ws://127.0.0.1:1")
    with pytest.raises(ValueError, match="ws://"):
        RemotePolicy("127.0.0.1:8000")


def test_the_wrong_key(policy):
    server = ServerThread(PolicyServer(policy, api_key="sesame"), "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.port}"
    with pytest.raises(ValueError, match="EB_VLA_API_KEY"):
        RemotePolicy(url)
    RemotePolicy(url, "sesame").close()
    server.stop()
