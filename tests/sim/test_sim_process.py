"""The simulator's process: the same answers, errors that do not kill, deaths that are noticed."""

import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from models.types import View
from studio.events import CameraPerturbation, LightPerturbation, SceneSpec
from studio.sim.libero_sim import LiberoSim
from studio.sim.process import SimCrashed, SimError, SimProcess
from tests.helpers import gone, wait_for

SCENE = SceneSpec("libero_goal", 3)
ACTION = np.array([0.2, 0, -0.3, 0, 0, 0, -1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def process(folder):
    with SimProcess(cache_dir=folder) as simulator:
        yield simulator


def test_each_scene_is_drawn_by_the_renderer_that_is_asked_for_as_it_loads(folder):
    wanted = View("fast", side=64)

    def picture(simulator: SimProcess) -> np.ndarray:
        simulator.load(SCENE)
        return simulator.observe().images["agentview"]

    with SimProcess(lambda: wanted, cache_dir=folder) as changing:
        fast, child = picture(changing), changing.pid
        wanted = View("faithful", side=224)
        np.testing.assert_array_equal(changing.observe().images["agentview"], fast)
        faithful = picture(changing)
        assert changing.pid != child and wait_for(lambda: gone(child))
        child = changing.pid
        np.testing.assert_array_equal(picture(changing), faithful)
        assert changing.pid == child
    assert fast.shape == (64, 64, 3) and faithful.shape == (224, 224, 3)
    with SimProcess(View("faithful", side=224), cache_dir=folder) as simulator:
        np.testing.assert_array_equal(picture(simulator), faithful)


def test_it_answers_as_the_simulator_does(process, folder):
    sim = LiberoSim(cache_dir=folder)
    assert process.load(SCENE) == sim.load(SCENE)
    reply, result = process.step(ACTION), sim.step(ACTION)
    assert reply.jpegs is None and reply.success == result.success
    np.testing.assert_array_equal(reply.proprio, result.proprio)
    np.testing.assert_array_equal(process.get_state(), sim.get_state())
    theirs, ours = process.observe("do it"), sim.observe("do it")
    assert theirs.instruction == "do it"
    for camera, picture in ours.images.items():
        np.testing.assert_array_equal(theirs.images[camera], picture)
    for pose in ("camera_pose", "nominal_camera_pose"):
        for one, other in zip(getattr(process, pose)(), getattr(sim, pose)(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert process.versions() == sim.versions()
    assert process.ask(sim.load(SCENE).instruction) == SCENE.task
    assert process.ask("do it") is None
    sim.close()


def test_frames_are_jpegs_of_what_is_there(process):
    process.load(SCENE)
    reply = process.step(ACTION, frames=True)
    assert reply.jpegs == process.frames()
    for data in reply.jpegs.values():
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (256, 256, 3)
    process.set_camera(CameraPerturbation(orbit_horizontal=20))
    moved = process.frames()
    assert moved["agentview"] != reply.jpegs["agentview"]
    assert moved["wrist"] == reply.jpegs["wrist"]
    process.set_light(LightPerturbation(intensity=40))
    assert process.frames()["wrist"] != moved["wrist"]


def test_a_refused_request_leaves_it_alive(process):
    pid = process.pid
    with pytest.raises(SimError, match="unknown suite"):
        process.load(SceneSpec("nowhere"))
    process.load(SCENE)
    with pytest.raises(SimError, match="7 finite numbers"):
        process.step(np.zeros(3))
    process.step(ACTION)
    assert process.pid == pid


def test_ctrl_c_is_the_parents_business(process):
    process.load(SCENE)
    os.kill(process.pid, signal.SIGINT)
    process.step(ACTION)


def test_a_killed_process_is_noticed_and_replaced(folder):
    with SimProcess(cache_dir=folder) as process:
        process.load(SCENE)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SimCrashed, match="SIGKILL"):
            process.step(ACTION)
        process.restart()
        with pytest.raises(SimError, match="load"):
            process.step(ACTION)
        process.load(SCENE)
        assert process.step(ACTION).proprio.shape == (8,)
        pid = process.pid
    wait_for(lambda: gone(pid))
    process.close()


def test_one_that_hangs_is_ended_and_replaced(folder, monkeypatch):
    with SimProcess(cache_dir=folder) as process:
        process.load(SCENE)
        os.kill(process.pid, signal.SIGSTOP)  # alive, and silent
        monkeypatch.setattr("studio.sim.process.PATIENCE_S", 0.3)
        with pytest.raises(SimCrashed, match=r"silent for 0\.3 s"):
            process.step(ACTION)
        monkeypatch.undo()
        wait_for(lambda: gone(process.pid))
        process.restart()
        process.load(SCENE)
        assert process.step(ACTION).proprio.shape == (8,)


def test_no_orphan_when_the_parent_is_killed():
    code = (
        "import time; from studio.sim.process import SimProcess;"
        "print(SimProcess().pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: gone(child))
