"""What may differ from nominal: forms and their bounds, and the lists that evaluations draw."""

from collections import Counter
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from studio.events import (
    LIGHT_BOUNDS,
    SENSOR_KINDS,
    CameraPerturbation,
    LightPerturbation,
    Perturbation,
    RobotStart,
    SceneSpec,
    SensorNoise,
)
from studio.perturbations import DIFFICULTIES, KINDS, draw, lights, sensors, starts
from studio.sim.light import filter_colour
from studio.sim.robot import joint_offset

SCENES = [SceneSpec("libero_object", task, init) for init in (40, 41) for task in range(3)]


@pytest.mark.parametrize("name", LIGHT_BOUNDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9, -1e9, "20", None, True])
def test_lights_are_checked(name, value):
    with pytest.raises(ValueError, match=f"light: {name}"):
        LightPerturbation(**{name: value})


@pytest.mark.parametrize(
    ("form", "values", "says"),
    [
        (SensorNoise, {"kind": "snow"}, "none, motion_blur"),
        (SensorNoise, {"kind": None}, "none, motion_blur"),
        (SensorNoise, {"kind": "fog", "severity": 0}, r"\[1, 10\]"),
        (SensorNoise, {"kind": "fog", "severity": 3.0}, "whole number"),
        (RobotStart, {"offset": -0.1}, r"\[0, 1\]"),
        (RobotStart, {"offset": float("nan")}, "offset"),
        (RobotStart, {"direction": 501}, r"\[1, 500\]"),
        (RobotStart, {"direction": True}, "whole number"),
        (SceneSpec, {"layout": "mirrored"}, "libero, swap"),
    ],
)
def test_the_other_forms_are_checked(form, values, says):
    with pytest.raises(ValueError, match=says):
        form(**values)


def test_a_perturbation_says_what_it_perturbs():
    assert Perturbation().nominal and Perturbation().kind == "none"
    both = Perturbation(CameraPerturbation(fov=60), sensor=SensorNoise("fog"))
    assert both.kind == "camera+sensor" and not both.nominal
    assert LightPerturbation(hue=120).nominal  # of a clear filter
    assert not LightPerturbation(hue=120, saturation=1).nominal
    assert SensorNoise("none", 7).nominal and RobotStart(0.0, 7).nominal


def test_a_filter_lets_its_own_colour_through():
    np.testing.assert_array_equal(filter_colour(LightPerturbation()), [1, 1, 1])
    np.testing.assert_array_equal(filter_colour(LightPerturbation(intensity=50)), [0.5] * 3)
    green = filter_colour(LightPerturbation(hue=120, saturation=40))
    np.testing.assert_allclose(green, [0.6, 1, 0.6])
    red = filter_colour(LightPerturbation(hue=360, saturation=100))
    np.testing.assert_allclose(red, [1, 0, 0])


def test_robot_starts_are_libero_pluss():
    """Its first two starts with 0.1 rad, and its 190th, with 0.2 (mounted_panda.py)."""
    base = np.array([0, -1.61037389e-01, 0, -2.44459747, 0, 2.22675220, np.pi / 4])
    published = {
        1: [0.02097405, -0.16687568, 0.02734903, -2.38028663, -0.00988726, 2.21686563, 0.85208136],
        2: [0.03347899, -0.181518, 0.02366894, -2.46481386, -0.02031725, 2.2373077, 0.70193217],
        190: [0.03712321, -0.15611758, -0.15074083, -2.51627481, -0.01099481, 2.1344447, 0.8311766],
    }  # fmt: skip
    for number, joints in published.items():
        start = starts(1 + number // 100)[number % 100 - 1]
        assert start.direction == number
        np.testing.assert_allclose(base + joint_offset(start), joints, atol=1e-7)
    assert np.linalg.norm(joint_offset(RobotStart(0.3, 400))) == pytest.approx(0.3)


@pytest.mark.parametrize("make", [lights, sensors, starts])
def test_every_difficulty_has_its_own_perturbations(make):
    everything = [item for d in DIFFICULTIES for item in make(d)]
    assert make(3) == make(3)
    assert not any(item.nominal for item in everything)
    kinds = {d: set(make(d)) for d in DIFFICULTIES}
    assert all(kinds[a].isdisjoint(kinds[b]) for a in DIFFICULTIES for b in range(1, a))


def test_lights_grow_with_the_difficulty():
    for d in DIFFICULTIES:
        for light in lights(d):
            changes = {
                abs(light.intensity - 100) / 40 if light.intensity > 100
                else (100 - light.intensity) / 16,
                abs(light.azimuth) / 30, abs(light.elevation) / 8, light.saturation / 18,
            }  # fmt: skip
            assert changes <= {0, d} and d in changes


def test_sensors_cover_kinds_and_severities():
    everything = {(n.kind, n.severity) for d in DIFFICULTIES for n in sensors(d)}
    assert len(everything) == 50 and {kind for kind, _ in everything} == set(SENSOR_KINDS[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_even_paired_and_always_the_same(kind):
    drawn = draw(kind, SCENES)
    assert drawn == draw(kind, SCENES) and len(drawn) == len(SCENES)
    plain = [replace(v.scene, robot=RobotStart(), layout="libero") for v in drawn]
    assert plain == SCENES  # each beside its nominal episode
    for v in drawn:
        changed = {
            "light": not v.perturbation.light.nominal,
            "sensor": not v.perturbation.sensor.nominal,
            "robot": not v.scene.robot.nominal,
            "swap": v.scene.layout == "swap",
        }
        assert [name for name, is_so in changed.items() if is_so] == [kind]


@pytest.mark.parametrize("kind", ["light", "sensor", "robot"])
def test_no_difficulty_keeps_to_one_initial_state(kind):
    scenes = [
        SceneSpec("libero_object", task, init) for init in range(40, 45) for task in range(10)
    ]
    for count in (None, 250):  # one round over the tasks' five states, and five
        drawn = draw(kind, scenes, count=count)
        for difficulty in range(1, 6):
            states = {t.scene.init for t in drawn if t.difficulty == difficulty}
            assert states == {40, 41, 42, 43, 44}
    of_one_task = {(t.scene.init, t.difficulty) for t in drawn if t.scene.task == 3}
    assert len(of_one_task) == 25


def test_draws_of_any_number():
    drawn = draw("sensor", SCENES, count=60)
    assert Counter(v.scene.task for v in drawn) == {0: 20, 1: 20, 2: 20}
    assert Counter(v.difficulty for v in drawn) == dict.fromkeys(DIFFICULTIES, 12)
    assert {v.difficulty for v in draw("light", SCENES, [2])} == {2}
    first, second = ([v.perturbation.light for v in drawn if v.scene.task == task]
                     for drawn in [draw("light", SCENES, count=30)] for task in (0, 1))  # fmt: skip
    assert first != second and len(set(first)) == 10
    assert len(draw("swap", SCENES, count=4)) == 4


@pytest.mark.parametrize(
    "arguments", [("rain", SCENES), ("light", []), ("light", SCENES, [6]), ("light", SCENES, [])]
)
def test_draws_of_nothing_say_so(arguments):
    with pytest.raises(ValueError):
        draw(*arguments)


def test_forms_are_plain_data():
    plain = asdict(SceneSpec(robot=RobotStart(0.1, 2)))
    assert plain["robot"] == {"offset": 0.1, "direction": 2}
    assert [f.name for f in fields(Perturbation)] == ["camera", "light", "sensor"]
