"""Demonstrations that begin where the shipped policy or a missed grasp led, on a real task."""

import h5py
import numpy as np
import pytest

from models.data import load_demonstrations
from studio import collect, dagger, demonstrate
from studio.events import SceneSpec
from studio.helm import REPLAN_EVERY
from studio.sim import catalog, expert_clumsy
from studio.sim.expert_midway import successor
from studio.sim.foresight import expert_chunk
from studio.sim.libero_sim import LiberoSim
from tests.helpers import ROOT

CHECKPOINT = str(ROOT / "assets/checkpoints/eb-vla-tiny")
SCENE = SceneSpec("libero_object", 9, 5)


@pytest.fixture(scope="module")
def sim():
    sim = LiberoSim(pixels="fast")
    yield sim
    sim.close()


@pytest.fixture(scope="module")
def leader():
    return dagger.Dagger.of(CHECKPOINT)


def test_the_expert_finishes_what_the_policy_began(sim, leader):
    attempts = [demonstrate.Attempt(SCENE, 0.0, (i,), leader) for i in range(6)]
    kept = (d for v, d in (demonstrate.record(sim, a) for a in attempts) if d is not None)
    demo = next(kept)
    begun = demo.attributes["steps_before"]
    assert demo.attributes["collected_by"] == "dagger" and begun % REPLAN_EVERY == 0
    assert demo.attributes["checkpoint"] == leader.sha256
    np.testing.assert_array_equal(demo.actions, demo.executed_actions)

    sim.load(SCENE)
    assert np.abs(demo.states[0] - sim.get_state()).max() > 0.01  # not LIBERO's initial state
    rng = np.random.default_rng(demo.attributes["entropy"])
    assert dagger.lead(sim, leader, 280, rng)[1] == begun  # the same seed leads the same way
    np.testing.assert_array_equal(demo.states[0], sim.get_state())
    successes = [sim.step(action).success for action in demo.executed_actions]
    assert all(successes[-demonstrate.HOLD_STEPS :])


def test_the_policys_own_states_get_the_experts_actions(sim):
    leader = dagger.Dagger.of(CHECKPOINT, relabel=True)
    verdict, demo = demonstrate.record(sim, demonstrate.Attempt(SCENE, 0.0, (3,), leader))
    assert verdict is demonstrate.Verdict.KEPT
    assert demo.attributes["collected_by"] == "dagger, relabelled"
    info = sim.load(SCENE)
    np.testing.assert_array_equal(demo.states[0], sim.get_state())
    success = [sim.step(action).success for action in demo.executed_actions]  # the policy's own
    assert success[-1] == demo.success and (demo.success or len(success) == info.max_steps)
    sim.load(SCENE)
    for action in demo.executed_actions[: 2 * REPLAN_EVERY]:
        sim.step(action)
    last = demo.executed_actions[2 * REPLAN_EVERY - 1]
    expected = expert_chunk(sim, last, REPLAN_EVERY).actions
    labels = demo.actions[2 * REPLAN_EVERY : 3 * REPLAN_EVERY]
    np.testing.assert_allclose(labels, expected, atol=2e-3)  # the solver starts warmer here
    assert np.abs(demo.actions - demo.executed_actions).max() > 0.05


def test_the_expert_goes_back_after_a_missed_grasp(sim):
    attempts = [demonstrate.Attempt(SCENE, 0.0, (i,), miss=True) for i in range(6)]
    demo = next(d for v, d in (demonstrate.record(sim, a) for a in attempts) if d is not None)
    assert demo.attributes["collected_by"] == "expert after a miss"
    info = sim.load(SCENE)
    expert, begun = expert_clumsy.miss(
        sim, info.max_steps, np.random.default_rng(demo.attributes["entropy"])
    )
    assert begun == demo.attributes["steps_before"] and not expert.done
    np.testing.assert_array_equal(demo.states[0], sim.get_state())
    left, right = demo.proprio[0, 6:8]
    assert left - right < 0.075  # the fingers are not open any more
    assert demo.actions[0, 6] == -1 and demo.actions[:, 6].max() == 1  # they open and grasp
    successes = [sim.step(action).success for action in demo.executed_actions]
    assert all(successes[-demonstrate.HOLD_STEPS :])


def test_asking_the_expert_disturbs_nothing(sim):
    def drive(ask: bool) -> np.ndarray:
        sim.load(SCENE)
        rng = np.random.default_rng(0)
        for _ in range(12):
            action = rng.uniform(-1, 1, 7)
            sim.step(action)
            if ask:
                assert np.abs(successor(sim, action, rng).act()).max() <= 1
        return sim.get_state()

    np.testing.assert_array_equal(drive(ask=True), drive(ask=False))


def test_a_task_without_a_skill_ends_no_collection(sim, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demonstrate, "_sim", sim)
    stove = next(
        i for i, task in enumerate(catalog.tasks("libero_90")) if "turn off" in task.instruction
    )
    attempts = tuple(
        demonstrate.Attempt(SceneSpec("libero_90", stove, init), 0.0, (0,)) for init in (0, 1)
    )
    demonstrate._tell.cache_clear()
    verdicts = demonstrate.make_part(tmp_path / "demo_0.hdf5", attempts)
    assert verdicts == (demonstrate.Verdict.UNABLE,) * 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.count("no skill for the goal 'turnoff'") == 1


def test_a_task_that_the_policy_solves_is_not_kept(sim, leader, monkeypatch):
    def solved(sim, leader, max_steps, rng):
        expert = successor(sim, np.zeros(7), rng)
        while not expert.done:
            sim.step(expert.act())
        return successor(sim, np.zeros(7), rng), 100

    monkeypatch.setattr(dagger, "lead", solved)
    verdict, demo = demonstrate.record(sim, demonstrate.Attempt(SCENE, 0.0, (0,), leader))
    assert verdict is demonstrate.Verdict.UNNEEDED and demo is None


def test_the_command_writes_what_trains(tmp_path):
    argv = ["--tasks", "9", "--per-task", "1", "--attempts", "8", "--workers", "1"]
    argv += ["--dagger", CHECKPOINT, "--beta", "0.3", "--out", str(tmp_path)]
    assert collect.main(argv) == 0
    with h5py.File(collect.demo_file(collect.parse(argv), 9)) as file:
        assert file["data/demo_0"].attrs["beta"] == 0.3
    assert load_demonstrations(tmp_path, 8).suites == ("libero_object",)
