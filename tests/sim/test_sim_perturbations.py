"""Light, robot start and layout of real scenes."""

import numpy as np
import pytest

from studio.events import LightPerturbation, RobotStart, SceneSpec
from studio.sim import catalog
from studio.sim.libero_sim import LiberoSim
from studio.sim.robot import joint_offset

SCENE = SceneSpec("libero_goal", 3, init=2, seed=5)
LEVER = 3.0  # m per radian that a moved joint may carry the hand at most


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sim(folder):
    simulator = LiberoSim(cache_dir=folder)
    yield simulator
    simulator.close()


def run(sim: LiberoSim, steps: int = 10) -> np.ndarray:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        sim.step(np.clip(rng.normal(0, 0.5, 7), -1, 1))
    return sim.get_state()


def arm(sim: LiberoSim) -> np.ndarray:
    return sim.env.sim.data.qpos[sim.env.robots[0]._ref_joint_pos_indexes].copy()


@pytest.mark.parametrize("pixels", ["fast", "faithful"])
def test_the_light_changes_live_and_comes_back(folder, pixels):
    sim = LiberoSim(pixels, cache_dir=folder)
    sim.load(SCENE)
    state, nominal = sim.get_state(), {c: sim.render(c) for c in ("agentview", "wrist")}
    means = []
    for intensity in (20, 60, 150):
        sim.set_light(LightPerturbation(intensity=intensity))
        means.append([sim.render(camera).mean() for camera in nominal])
    assert (np.diff(means, axis=0) > 5).all()
    assert (np.array(means[1]) < [picture.mean() for picture in nominal.values()]).all()
    sim.set_light(LightPerturbation(hue=0, saturation=80))
    red, green, blue = sim.render("agentview").reshape(-1, 3).mean(axis=0)
    assert red > 1.5 * green and red > 1.5 * blue
    for light in (LightPerturbation(azimuth=90), LightPerturbation(elevation=40)):
        sim.set_light(light)
        turned = sim.render("agentview").astype(int)
        assert np.abs(turned - nominal["agentview"]).mean() > 1
    sim.set_light(LightPerturbation())
    for camera, picture in nominal.items():
        np.testing.assert_array_equal(sim.render(camera), picture)
    np.testing.assert_array_equal(sim.get_state(), state)
    sim.close()


def test_a_loaded_scene_has_liberos_light_and_a_reset_keeps_what_was_set(sim):
    sim.load(SCENE)
    nominal = sim.render("agentview")
    sim.set_light(LightPerturbation(intensity=30))
    dark = sim.render("agentview")
    sim.reset()
    np.testing.assert_array_equal(sim.render("agentview"), dark)
    sim.load(SCENE)
    np.testing.assert_array_equal(sim.render("agentview"), nominal)


def test_the_arm_starts_elsewhere_and_stays_there(sim):
    sim.load(SCENE)
    hand = sim.proprio()[:3]
    sim.set_state(catalog.init_state(SCENE.suite, SCENE.task, SCENE.init))
    nominal = arm(sim)  # before it settled
    start = RobotStart(0.2, 150)
    info = sim.load(SceneSpec("libero_goal", 3, init=2, seed=5, robot=start))
    np.testing.assert_allclose(info.home, hand, atol=0.02)  # where it would have started
    np.testing.assert_allclose(arm(sim) - nominal, joint_offset(start), atol=0.03)
    assert 0.01 < np.linalg.norm(sim.proprio()[:3] - hand) < LEVER * start.offset
    joints = arm(sim)
    for _ in range(20):
        sim.step(np.array([0.0] * 6 + [-1.0]))
    np.testing.assert_allclose(arm(sim), joints, atol=0.01)  # nothing pulls the elbow back


def test_the_same_robot_start_gives_the_same_episode(sim):
    moved = SceneSpec("libero_goal", 3, init=2, seed=5, robot=RobotStart(0.3, 201))
    sim.load(SCENE)
    first = run(sim)
    sim.load(moved)
    snapshot = sim.snapshot()
    other = run(sim)
    assert np.abs(other - first).max() > 0.05
    sim.restore(snapshot)
    np.testing.assert_array_equal(run(sim), other)
    sim.reset()
    np.testing.assert_array_equal(run(sim), other)
    sim.load(SCENE)  # the nominal episode again
    np.testing.assert_array_equal(run(sim), first)


@pytest.mark.parametrize(
    ("suite", "task", "goes", "comes"),
    [
        ("libero_object", 7, "milk_1", "cream_cheese_1"),
        ("libero_goal", 1, "wooden_cabinet_1", "flat_stove_1"),  # fixtures: not in the state
    ],
)
def test_in_the_swapped_layout_two_things_have_changed_places(sim, suite, task, goes, comes):
    def places(layout):
        info = sim.load(SceneSpec(suite, task, layout=layout))
        data = sim.env.sim.data
        return info, [data.get_body_xpos(f"{name}_main")[:2].copy() for name in (goes, comes)]

    info, (first, second) = places("libero")
    swapped, (then_first, then_second) = places("swap")
    assert swapped.instruction == info.instruction
    assert np.linalg.norm(first - second) > 0.15  # metres
    assert np.linalg.norm(then_first - second) < 0.1 and np.linalg.norm(then_second - first) < 0.1
    state = run(sim)
    places("libero")
    places("swap")
    np.testing.assert_array_equal(run(sim), state)


def test_layouts_that_liberopro_has():
    for suite in catalog.SUITES[:4]:
        assert catalog.has_layout(suite, "swap")
        for task in catalog.tasks(suite):
            assert catalog.bddl_file(suite, task.index) == task.bddl_file
            assert catalog.bddl_file(suite, task.index, "swap").read_bytes() != (
                task.bddl_file.read_bytes()
            )
            own, swapped = (catalog.init_state(suite, task.index, 49, layout)
                            for layout in ("libero", "swap"))  # fmt: skip
            assert own.shape == swapped.shape
            assert catalog.n_inits(suite, task.index, "swap") == 50
    assert not catalog.has_layout("libero_90", "swap")
    with pytest.raises(ValueError, match="no swap layout"):
        catalog.bddl_file("libero_90", 0, "swap")
