"""Sessions over the real simulator: kept apart, survive a kill, leave nothing running."""

import os
import signal
from functools import partial

import pytest

from models.config import SamplerConfig
from models.policy import Policy
from studio.events import (
    Advance,
    CameraPerturbation,
    LoadScene,
    Run,
    SceneSpec,
    SetCamera,
    SetSampler,
    Status,
)
from studio.loop import ControlLoop
from studio.recorder import Recorder
from studio.session import Session, SessionManager, SessionOptions
from studio.sim.process import SimError, SimProcess
from tests import helpers

SCENE = SceneSpec("libero_object", 0, 40, 0)
wait_for = partial(helpers.wait_for, seconds=180)


@pytest.fixture(scope="module")
def policy(debug_checkpoint):
    return Policy.from_pretrained(debug_checkpoint, device="cpu")


@pytest.fixture
def manager(policy):
    manager = SessionManager(policy, {}, SessionOptions(cap=2, scene=SCENE, linger_s=0.5))
    yield manager
    manager.close()


def status(session):
    return session.feed.snapshot().state.status


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_sessions_are_apart_queue_and_leave_nothing(manager):
    one, two = manager.attach("1" * 32), manager.attach("2" * 32)
    assert isinstance(one, Session) and isinstance(two, Session)
    assert manager.attach("3" * 32) == 1  # the first in the queue
    wait_for(lambda: status(one) is status(two) is Status.PAUSED)
    one.submit(SetCamera(CameraPerturbation(orbit_horizontal=30)))
    one.submit(Advance(8))
    wait_for(lambda: one.feed.snapshot().state.step == 8)
    assert len(one.feed.snapshot().plans) == 1
    other = two.feed.snapshot()
    assert (other.state.step, other.plans, other.marks) == (0, (), ())
    assert other.state.camera.nominal
    pid = one.sim.pid
    manager.detach(one)
    wait_for(lambda: manager.get("1" * 32) is None)
    wait_for(lambda: gone(pid))
    assert isinstance(manager.attach("3" * 32), Session)


def test_a_session_that_runs_ends_without_another_simulator(manager):
    session = manager.attach("1" * 32)
    wait_for(lambda: status(session) is Status.PAUSED)
    session.submit(Run())
    wait_for(lambda: session.feed.snapshot().state.step > 2)
    pid = session.sim.pid
    session.close()
    assert gone(pid) and session.sim.pid == pid
    wait_for(lambda: not session.thread.is_alive())
    with pytest.raises(SimError, match="closed"):
        session.sim.restart()


def test_an_idle_session_gives_its_simulator_back(policy):
    options = SessionOptions(cap=1, scene=SCENE, linger_s=0.5, idle_s=0.5)
    manager = SessionManager(policy, {}, options)
    session = manager.attach("5" * 32)
    pid = session.sim.pid
    wait_for(lambda: session.feed.snapshot().closed)
    wait_for(lambda: gone(pid))
    assert manager.get("5" * 32) is None
    manager.close()


def test_a_killed_simulator_is_an_error_and_comes_back(manager):
    session = manager.attach("4" * 32)
    wait_for(lambda: status(session) is Status.PAUSED)
    session.submit(Run())
    wait_for(lambda: session.feed.snapshot().state.step > 3)
    os.kill(session.sim.pid, signal.SIGKILL)
    wait_for(lambda: status(session) is Status.ERROR)
    snapshot = session.feed.snapshot()
    assert "SIGKILL" in snapshot.state.message and "restarted" in snapshot.state.message
    assert session.recorder.episode().steps, "what was recorded is kept"
    session.submit(Advance(2))
    wait_for(lambda: status(session) is Status.PAUSED and session.feed.snapshot().state.step == 2)


def test_the_same_scene_gives_the_same_episode(policy):
    runs = []
    with SimProcess() as sim:
        for _ in range(2):
            recorder = Recorder({})
            loop = ControlLoop(sim, policy, [recorder], hz=0, frames="none")
            loop.apply(SetSampler(SamplerConfig(steps=3)))
            loop.apply(LoadScene(SceneSpec("libero_object", 1, 41, 3)))
            loop.apply(Advance(24))
            while loop.state.status is Status.RUNNING:
                loop.tick()
            runs.append(recorder.episode())
    first, second = ([step.proprio.tolist() for step in run.steps] for run in runs)
    assert len(first) == 24 and first == second
    assert runs[0].mean_final_energy == runs[1].mean_final_energy
