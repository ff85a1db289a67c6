"""The scripted expert in the real simulator, and collections that are interrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from studio import collect, demos
from studio.demonstrate import Attempt, Verdict, record
from studio.events import RobotStart, SceneSpec
from studio.sim import catalog
from studio.sim.expert import Expert
from studio.sim.libero_sim import LiberoSim


@pytest.fixture(scope="module")
def sim():
    sim = LiberoSim(pixels="fast")
    yield sim
    sim.close()


def solve(sim: LiberoSim, scene: SceneSpec, seed: int = 0) -> tuple[Expert, bool, np.ndarray]:
    """Let the expert finish; returns it, whether the task is solved, and its actions."""
    info = sim.load(scene)
    expert, actions, success = Expert(sim, np.random.default_rng(seed)), [], False
    while not expert.done and len(actions) < info.max_steps:
        actions.append(expert.act())
        success = sim.step(actions[-1]).success
    return expert, success, np.array(actions)


@pytest.mark.parametrize(
    "scene",
    [
        SceneSpec("libero_object", 7, 3),  # a milk carton, into the basket
        SceneSpec("libero_spatial", 4, 2),  # a bowl, out of a narrow drawer
        SceneSpec("libero_goal", 0, 0),  # a drawer
        SceneSpec("libero_10", 3, 2),  # a bowl into a drawer, and the drawer shut
        SceneSpec("libero_goal", 7, 0),  # a knob
        SceneSpec("libero_object", 0, 3, goal=7),  # another task's milk carton
        SceneSpec("libero_object", 7, 3, robot=RobotStart(0.4, 350), layout="swap"),
    ],
    ids=lambda scene: f"{scene.suite}-{scene.task}-{scene.goal}-{scene.layout}",
)
def test_the_expert_solves_a_task_with_one_grasp(sim, scene):
    expert, success, actions = solve(sim, scene)
    assert success and expert.done and expert.retries == 0
    assert np.abs(actions).max() <= 1
    assert np.linalg.norm(np.diff(actions[:, :3], axis=0), axis=1).max() <= 0.26  # smooth


def test_the_same_seed_gives_the_same_actions(sim):
    scene = SceneSpec("libero_object", 9, 5)
    np.testing.assert_array_equal(solve(sim, scene)[2], solve(sim, scene)[2])


def test_a_scene_is_asked_for_another_goal_and_back(sim):
    info = sim.load(SceneSpec("libero_object", 0, 3, goal=7))
    assert "milk" in info.instruction and "milk" in sim.observe().instruction
    assert sim.env.parsed_problem["goal_state"] == [["in", "milk_1", "basket_1_contain_region"]]
    info = sim.load(SceneSpec("libero_object", 0, 3))
    assert "alphabet soup" in info.instruction
    assert "alphabet_soup_1" in sim.env.parsed_problem["goal_state"][0]
    assert sim.ask("Pick up the  butter and place it in the basket") == 6
    assert sim.env.parsed_problem["goal_state"] == [["in", "butter_1", "basket_1_contain_region"]]
    sim.reset()
    assert "butter" in sim.observe().instruction
    assert sim.ask("pick up the ketchup and place it in the basket") is None  # none here
    with pytest.raises(ValueError, match="possible: 1, 2, 5, 6, 7"):
        sim.load(SceneSpec("libero_object", 0, 3, goal=4))


def test_a_goal_without_a_skill_is_refused(sim, monkeypatch):
    sim.load(SceneSpec("libero_object", 9, 5))
    monkeypatch.setitem(sim.env.parsed_problem, "goal_state", [["juggle", "milk_1"]])
    with pytest.raises(ValueError, match="no skill for the goal 'juggle'"):
        Expert(sim)


def test_a_recorded_episode_replays_to_success(sim):
    verdict, demo = record(sim, Attempt(SceneSpec("libero_object", 9, 5), 0.12, (0,)))
    assert verdict is Verdict.KEPT
    noise = demo.executed_actions - demo.actions
    assert 0.08 < noise[:, :3].std() < 0.16 and not noise[:, 6].any()
    assert demo.images["agentview"].shape == (len(demo.actions), 128, 128, 3)
    sim.load(SceneSpec("libero_object", 9, 5))
    success = [sim.step(action).success for action in demo.executed_actions]
    assert all(success[-5:])


def test_robosuite_plays_a_file_back_from_what_the_file_says(sim, tmp_path):
    """As robomimic does: make the environment of `env_args`, load `model_file`, set the states."""
    import robosuite

    attempt = Attempt(SceneSpec("libero_goal", 1, 4, seed=7), 0.0, (0,))
    verdict, demo = record(sim, attempt)
    assert verdict is Verdict.KEPT
    info = catalog.task("libero_goal", 1)
    header = demos.task_header(info.bddl_file, info.instruction, demos.COLLECTED)
    demos.write_file(tmp_path / "demo.hdf5", header, [demo])
    with h5py.File(tmp_path / "demo.hdf5") as file:
        told = json.loads(file["data"].attrs["env_args"])
        first = file["data/demo_0"]
        xml, states = first.attrs["model_file"], first["states"][()]
        assert told["env_name"] == file["data"].attrs["env_name"]
    cheap = {"use_camera_obs": False, "has_offscreen_renderer": False}
    env = robosuite.make(told["env_name"], **told["env_kwargs"] | cheap)
    env.reset()
    env.reset_from_xml_string(xml)
    env.sim.reset()
    for state, proprio in ((states[0], demo.proprio[0]), (states[-1], demo.proprio[-1])):
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        at = env.sim.data.site_xpos[env.robots[0].eef_site_id]
        np.testing.assert_allclose(at, proprio[:3], atol=1e-4)
    assert env._check_success()
    sim.load(attempt.scene)
    bodies = [
        (s.model.body_names, s.model.body_pos, s.model.body_quat) for s in (env.sim, sim.env.sim)
    ]
    assert bodies[0][0] == bodies[1][0]
    np.testing.assert_allclose(bodies[0][1], bodies[1][1], atol=1e-9)
    np.testing.assert_allclose(bodies[0][2], bodies[1][2], atol=1e-9)
    env.close()


def test_a_killed_collection_leaves_whole_files_and_goes_on(tmp_path):
    argv = ["--tasks", "9", "--per-task", "2", "--workers", "1", "--out", str(tmp_path)]
    config = collect.parse(argv)
    first = collect.Episode(config, 9, 0).part
    command = [sys.executable, "-m", "studio.collect", *argv]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not first.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    for path in tmp_path.rglob("*.hdf5"):
        h5py.File(path, "r").close()
    with h5py.File(first, "r+") as file:
        file["demo"].attrs["first_run"] = True

    assert collect.main(argv) == 0
    path = collect.demo_file(config, 9)
    with h5py.File(path, "r") as file:
        assert file["data"].attrs["num_demos"] == 2
        assert file["data/demo_0"].attrs["first_run"]  # kept, not made again
    left = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {path, tmp_path / collect.RECIPES}
    assert demos.count_demos(path) == 2
