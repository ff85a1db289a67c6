"""The policy server, asked by a client that knows openpi's protocol and nothing of the studio's own
wire format: its own msgpack hooks, robosuite's convention of images."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from websockets import ConnectionClosed

from models.checkpoint import TrainingRecord, save_checkpoint
from models.config import SamplerConfig, preset
from models.model import EBVLA
from models.normalize import Statistics
from models.policy import Policy
from models.types import Observation
from studio import serve
from studio.serving import PolicyServer, ServerThread
from tests.helpers import free_port, wait_for
from tests.unit.protocol_client import Client, element, from_map, get, robosuite_images, to_map


def upright(seed: int = 0, prompt: str = "pick up the milk") -> Observation:
    """The same as the studio's simulator hands it to the policy: the top row first."""
    images = {name: image[::-1].copy() for name, image in robosuite_images(seed).items()}
    state = np.random.default_rng(seed).normal(size=8).astype(np.float32)
    return Observation(images, state, prompt)


def queued(port: int, count: int) -> None:
    """Wait until so many requests are taken, and until the policy is asked for their plans."""
    wait_for(lambda: f"eb_vla_queue_length {count}.0" in get(port, "/metrics"))
    for _ in range(3):  # what comes next in the server's loop has been done then
        get(port, "/metrics")


def test_actions_are_those_of_the_policy_on_the_upright_images(client, policy):
    assert client.metadata["horizon"] == 8 and client.metadata["action_dim"] == 7
    for seed in range(2):
        reply = client.infer(element(seed))
        wanted = policy.plan(upright(seed))
        np.testing.assert_allclose(reply["actions"], wanted.actions, atol=1e-5)
        assert reply["actions"].shape == (8, 7) and np.abs(reply["actions"]).max() <= 1
        assert reply["server_timing"]["infer_ms"] > 0 and "eb_vla" not in reply
    assert reply["server_timing"]["prev_total_ms"] > 0
    mirrored = Observation(
        {name: image[:, ::-1] for name, image in upright(1).images.items()},
        upright(1).proprio,
        upright(1).instruction,
    )
    assert np.abs(policy.plan(mirrored).actions - reply["actions"]).max() > 1e-3


def test_the_extension_tells_energies_and_the_whole_descent(client, policy):
    sampler = {"steps": 4, "chains": 3}
    asked = {"seed": 7, "sampler": sampler, "trace": True}
    reply = client.infer(element() | {"eb_vla": asked})
    wanted, told = policy.plan(upright(), SamplerConfig(**sampler), seed=7), reply["eb_vla"]
    assert told["chain"] == wanted.chain
    assert told["final_energy"] == pytest.approx(wanted.final_energy, abs=1e-5)
    assert told["energy_gap"] == pytest.approx(wanted.energy_gap, abs=1e-5)
    np.testing.assert_allclose(told["readout"], wanted.readout, atol=1e-5)
    for name, array in told["trace"].items():
        np.testing.assert_allclose(array, getattr(wanted.trace, name), atol=1e-4)
    short = client.infer(element() | {"eb_vla": {"seed": 7, "sampler": sampler}})["eb_vla"]
    assert "trace" not in short and short["initial_energy"] == told["initial_energy"]


def test_what_can_be_looked_into(client, policy):
    centre = np.zeros((8, 7), np.float32)
    asked = {"kind": "slice_2d", "centre": centre, "dims": [1, 2], "span": 2, "grid": 5}
    found = client.infer(element() | {"eb_vla": asked})["eb_vla"]["slice"]
    wanted = policy.slice_2d(upright(), centre, dims=(1, 2), span=2.0, grid=5)
    np.testing.assert_allclose(found["energies"], wanted.energies, atol=1e-5)
    np.testing.assert_array_equal(found["u"], wanted.u)
    asked = {"kind": "energies", "actions": centre[None]}
    found = client.infer(element() | {"eb_vla": asked})["eb_vla"]
    assert found["energies"][0] == pytest.approx(policy.energies(upright(), centre[None])[0][0])
    asked = {"kind": "explore", "seed": 3, "sampler": {"steps": 2, "chains": 2}}
    trace = client.infer(element() | {"eb_vla": asked})["eb_vla"]["trace"]
    assert trace["actions"].shape == (3, 2, 8, 7)


def test_plans_that_wait_together_are_made_together_and_alike(port, policy):
    policy.gate.clear()
    policy.entered.clear()
    policy.sizes.clear()
    clients = [Client(port) for _ in range(5)]
    with ThreadPoolExecutor(5) as threads:
        first = threads.submit(clients[0].infer, element(0))
        assert policy.entered.wait(120)  # with the first one; the others wait for it
        rest = [threads.submit(c.infer, element(i + 1)) for i, c in enumerate(clients[1:])]
        queued(port, 5)
        policy.gate.set()
        replies = [future.result(120) for future in (first, *rest)]
    assert policy.sizes == [1, 4]
    for seed, reply in enumerate(replies):
        alone = Policy.plan_batch(policy, [upright(seed)], SamplerConfig(), [0])[0]
        np.testing.assert_allclose(reply["actions"], alone.actions, atol=1e-4)
    for client in clients:
        client.socket.close()


def test_a_client_that_leaves_takes_its_request_along(port, policy):
    policy.gate.clear()
    policy.entered.clear()
    policy.sizes.clear()
    staying, leaving = Client(port), Client(port)
    with ThreadPoolExecutor(1) as threads:
        stays = threads.submit(staying.infer, element())
        assert policy.entered.wait(120)
        leaving.socket.send(msgpack.packb(element(1), default=to_map))
        queued(port, 2)
        leaving.socket.close()
        queued(port, 1)
        policy.gate.set()
        assert stays.result(120)["actions"].shape == (8, 7)
    assert staying.infer(element())["actions"].shape == (8, 7)
    assert policy.sizes == [1, 1]
    staying.socket.close()


def test_health_and_metrics(client, port):
    client.infer(element())
    assert get(port, "/healthz") == "OK\n"
    text = get(port, "/metrics")
    assert 'eb_vla_requests_total{kind="plan",outcome="ok"}' in text
    for name in ("plans_total", "batch_size_bucket", "request_seconds_bucket", "queue_length"):
        assert f"eb_vla_{name}" in text


def test_health_tells_of_a_policy_that_only_fails(policy, monkeypatch):
    """As after a GPU's fault, which no later plan survives: a supervisor starts the server anew."""
    server = ServerThread(PolicyServer(policy), "127.0.0.1", 0)
    with monkeypatch.context() as faulty:
        faulty.setattr(policy, "plan_batch", lambda *_: 1 / 0, raising=False)
        for failures in range(3):
            assert get(server.port, "/healthz") == "OK\n", failures
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                Client(server.port).infer(element())
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(server.port, "/healthz")
    Client(server.port).infer(element())
    assert get(server.port, "/healthz") == "OK\n"
    server.stop()


def test_who_leaves_an_analysis_takes_the_pictures_along(policy, monkeypatch):
    server = PolicyServer(policy)
    thread, begun, go_on = (
        ServerThread(server, "127.0.0.1", 0),
        threading.Event(),
        threading.Event(),
    )

    def slow(*_, **__):
        begun.set()
        assert go_on.wait(120)
        raise ValueError("enough")

    monkeypatch.setattr(policy, "slice_2d", slow, raising=False)
    asked = {"kind": "slice_2d", "centre": np.zeros((8, 7), np.float32)}
    frame = msgpack.packb(element() | {"eb_vla": asked}, default=to_map)
    clients = [Client(thread.port) for _ in range(5)]
    for client in clients:
        client.socket.send(frame)
        assert begun.wait(120)
    queued(thread.port, 5)
    for client in clients[1:]:
        client.socket.close()
    queued(thread.port, 1)
    assert server._beside._work_queue.qsize() == 0
    go_on.set()
    thread.stop()


def test_numpys_scalars_are_numbers(client):
    sampler = {"steps": np.int64(4), "step_size": np.float32(0.2)}
    asked = {"seed": np.int64(3), "sampler": sampler, "trace": np.bool_(True)}
    assert client.infer(element() | {"eb_vla": asked})["eb_vla"]["trace"]["grad_norms"].size == 4


def test_openpis_clients_may_tell_of_their_episodes(client):
    assert client.infer({"__ctrl__": "episode_start", "__task__": "x"}) == {
        "__ack__": "episode_start"
    }


# -- the command -----------------------------------------------------------------------------------
def test_sigterm_answers_what_is_in_flight(policy, monkeypatch, capsys):
    """The command itself, in this thread, where signals arrive; its client in another."""
    monkeypatch.setattr(serve.Policy, "from_pretrained", lambda *_, **__: policy)
    port = free_port()
    policy.gate.clear()
    policy.entered.clear()

    def ask_and_stop() -> dict:
        try:
            wait_for(lambda: "ws://" in capsys.readouterr().out)
            client = Client(port)
            client.socket.send(msgpack.packb(element(), default=to_map))
            assert policy.entered.wait(120)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: not listens(port))
            policy.gate.set()
            reply = msgpack.unpackb(client.socket.recv(120), object_hook=from_map)
            with pytest.raises(ConnectionClosed, match="1001"):
                client.socket.recv(120)
            return reply
        finally:  # a failure here must not leave the command waiting
            policy.gate.set()
            if listens(port):
                os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask_and_stop)
        assert serve.main(["--port", str(port)]) == 0
        assert asked.result(60)["actions"].shape == (8, 7)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--checkpoint", "nowhere"], "no such"), (["--port", "99999"], "--port")],
)
def test_the_commands_bad_input(capsys, options, says):
    assert serve.main(["--port", "0", *options]) == 2
    assert says in capsys.readouterr().err


def test_what_can_not_be_served(policy, port, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        PolicyServer(policy, max_queue=0)
    with pytest.raises(ValueError, match="key is empty"):
        PolicyServer(policy, api_key=" ")
    with pytest.raises(OSError, match="in use"):
        ServerThread(PolicyServer(policy), "127.0.0.1", port)
    six_axes = EBVLA(replace(preset("debug"), action_dim=6))
    statistics = Statistics.fit(np.zeros((9, 6)), np.zeros((9, 8)))
    folder = save_checkpoint(tmp_path / "other", six_axes, statistics, TrainingRecord())
    with pytest.raises(ValueError, match="another robot"):
        PolicyServer(Policy.from_pretrained(folder, device="cpu"))
