"""LIBERO-Plus's and LIBERO-PRO's perturbations as lists to draw from, by difficulty 1 - 5.

For the camera LIBERO-Plus's own table says how hard each view is (`catalog.libero_plus_views`). For
these kinds the size of the perturbation does, in five equal steps:

light    the lamps dimmed or brightened, turned, coloured, or all three at once
sensor   LIBERO-Plus's five kinds of noise; difficulty d is its severities 2d - 1 and 2d
robot    LIBERO-Plus's 500 robot starts; difficulty d is its hundred with 0.1 d rad
swap     LIBERO-PRO's swapped layout, the same for every difficulty

Everything here is a pure function: the same arguments give the same list.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle

from studio.events import (
    SENSOR_KINDS,
    LightPerturbation,
    Perturbation,
    RobotStart,
    SceneSpec,
    SensorNoise,
)
from studio.trial import Trial

KINDS = ("light", "sensor", "robot", "swap")
DIFFICULTIES = range(1, 6)
LIGHTS = 24  # per difficulty
STARTS = 100  # per difficulty, LIBERO-Plus's own number
HUES = range(0, 360, 30)


@cache
def lights(difficulty: int) -> tuple[LightPerturbation, ...]:
    """`LIGHTS` lights of a difficulty: a quarter each of intensity, direction, colour and all.

    Difficulty d dims by 16 d % or brightens by 40 d %, turns the lamps by 30 d ° and tilts them by
    8 d °, and colours them by 18 d %.
    """
    rng = random.Random(difficulty)
    made = []
    for i in range(LIGHTS):
        intensity = 100.0 + rng.choice((-16, 40)) * difficulty
        azimuth = float(rng.choice((-30, 30)) * difficulty)
        elevation = float(rng.choice((-8, 8)) * difficulty)
        hue, saturation = float(rng.choice(HUES)), 18.0 * difficulty
        made.append(
            (
                LightPerturbation(intensity=intensity),
                LightPerturbation(azimuth=azimuth, elevation=elevation),
                LightPerturbation(hue=hue, saturation=saturation),
                LightPerturbation(intensity, azimuth, elevation, hue, saturation),
            )[i % 4]
        )
    return tuple(made)


def sensors(difficulty: int) -> tuple[SensorNoise, ...]:
    """The five kinds at the two severities of a difficulty."""
    severities = (2 * difficulty - 1, 2 * difficulty)
    return tuple(SensorNoise(kind, s) for s in severities for kind in SENSOR_KINDS[1:])


def starts(difficulty: int) -> tuple[RobotStart, ...]:
    """LIBERO-Plus's hundred robot starts of a difficulty."""
    first = STARTS * (difficulty - 1) + 1
    return tuple(RobotStart(difficulty / 10, first + i) for i in range(STARTS))


_CHOICES = {"light": lights, "sensor": sensors, "robot": starts}


def draw(
    kind: str,
    scenes: Sequence[SceneSpec],
    difficulties: Sequence[int] = tuple(DIFFICULTIES),
    count: int | None = None,
) -> list[Trial]:
    """`count` trials (None: one per scene) of one kind, drawn evenly over the scenes' tasks.

    The k-th trial of a task starts from its k-th scene, so that each has a nominal episode beside
    it. Difficulties take turns. Whether a suite has a swapped layout, `catalog.check_scene` knows.
    Raises ValueError for another kind or difficulty, and without scenes.
    """
    if kind not in KINDS:
        raise ValueError(f"a perturbation is one of {', '.join(KINDS)}, not {kind!r}")
    if not scenes or not difficulties or not set(difficulties) <= set(DIFFICULTIES):
        raise ValueError(f"{kind}: scenes, and difficulties of 1 to 5, are needed")
    by_task: dict[tuple[str, int], list[SceneSpec]] = {}
    for scene in scenes:
        by_task.setdefault((scene.suite, scene.task), []).append(scene)
    if kind == "swap":
        swapped = [replace(scene, layout="swap") for scene in _in_turn(list(by_task.values()))]
        return [Trial(scene, kind) for scene in swapped[:count]]
    wanted = len(scenes) if count is None else count
    per_task = -(-wanted // len(by_task))
    drawn = [
        [_trial(kind, own[k % len(own)], *choice) for k, choice in enumerate(choices)]
        for own in by_task.values()
        for choices in [_choices(kind, own[0], len(own), difficulties, per_task)]
    ]
    return _in_turn(drawn)[:wanted]


def _choices(
    kind: str, task: SceneSpec, scenes: int, difficulties: Sequence[int], count: int
) -> list[tuple[int, object]]:
    """(difficulty, what) for each of a task's trials: every task draws in an order of its own."""
    rng = random.Random(f"{kind} {task.suite} {task.task}")
    decks = {}
    for difficulty in difficulties:
        whole = list(_CHOICES[kind](difficulty))
        decks[difficulty] = cycle(rng.sample(whole, len(whole)))
    # Another difficulty first in each task and in each round of its scenes: none keeps to one.
    turns = (difficulties[(k + k // scenes + task.task) % len(difficulties)] for k in range(count))
    return [(difficulty, next(decks[difficulty])) for difficulty in turns]


def _trial(kind: str, scene: SceneSpec, difficulty: int, what: object) -> Trial:
    if kind == "robot":
        return Trial(replace(scene, robot=what), kind, difficulty=difficulty)
    return Trial(scene, kind, Perturbation(**{kind: what}), difficulty=difficulty)


def _in_turn(lists: Sequence[Sequence]) -> list:
    """First the first of each list, then the second of each …"""
    longest = max(map(len, lists))
    return [items[k] for k in range(longest) for items in lists if k < len(items)]
