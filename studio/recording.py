"""One recording, read back from its tape (`studio.tape`): whole, or as far as it came."""

from __future__ import annotations

import binascii
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from models.hold import is_held
from models.trajectory import DRIVERS
from studio.events import (
    CameraPerturbation,
    Comparison,
    LightPerturbation,
    Mark,
    Outcome,
    RobotStart,
    SceneSpec,
    SensorNoise,
)
from studio.feed import append_mark
from studio.jobs import json_objects
from studio.tape import FORMAT, TAPE, unpack

ACTION, PROPRIO = 7, 8  # numbers of an action and of a hand's proprioception
CUT_SHORT = "its end is missing: the studio or its machine stopped"


class Unreadable(ValueError):
    """A tape that this studio can't read; the text says why."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How the scene is seen, and what is asked, from `step` on."""

    step: int
    instruction: str
    camera: CameraPerturbation
    light: LightPerturbation
    sensor: SensorNoise


@dataclass(frozen=True, slots=True)
class Recording:
    """An episode of T steps. `states[t]` is what was so before `actions[t]`.

    `outcome` is None for a tape that was cut short.
    """

    scene: SceneSpec
    begun: float  # time.time()
    versions: Mapping[str, str]  # of the simulator
    provenance: Mapping[str, Any]
    views: tuple[Shown, ...]  # the first is at step 0
    plans: tuple[Mapping[str, Any], ...]
    comparisons: tuple[Comparison, ...]  # of a person's chunks with the policy's plans
    marks: tuple[Mark, ...]
    actions: np.ndarray  # float64 [T, 7], as executed, bit for bit
    states: np.ndarray  # float64 [T + 1, state]
    proprio: np.ndarray  # float32 [T, 8], after each step
    drivers: tuple[str, ...]  # of DRIVERS, per step
    success: np.ndarray  # bool [T], after each step
    outcome: Outcome | None
    message: str

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def instructions(self) -> tuple[str, ...]:
        """What was asked, in its order."""
        return tuple(text for text, _ in groupby(view.instruction for view in self.views))

    def view(self, step: int) -> Shown:
        """The one in force when action `step` was chosen."""
        return [view for view in self.views if view.step <= step][-1]

    def runs(self) -> list[tuple[str, int]]:
        """Who drove, and for how many steps, one after another."""
        return [(driver, len(list(steps))) for driver, steps in groupby(self.drivers)]


def read(folder: Path) -> Recording:
    """The recording in `folder`. Raises Unreadable for a tape without a step or of another kind."""
    if not (folder / TAPE).is_file():
        raise Unreadable(f"{folder}: no recording here, {TAPE} is missing")
    try:
        return _recording(_rows(folder / TAPE))
    except Unreadable:
        raise
    except (KeyError, TypeError, ValueError, IndexError, binascii.Error) as error:
        raise Unreadable(f"{folder.name}: the tape is damaged ({error})") from None


def being_written(folder: Path) -> bool:
    """Whether a studio records there now."""
    return is_held(folder / TAPE)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a tape, one in memory at a time."""
    with path.open("rb") as lines:
        yield from json_objects(lines)


def _recording(rows: Iterator[dict[str, Any]]) -> Recording:
    first = next(rows, {})
    if first.get("event") != "episode":
        raise Unreadable("the tape has no beginning")
    if first["format"] > FORMAT:
        raise Unreadable("recorded by a newer studio; upgrade this one to open it")
    steps, others = _Steps(first["state"]), defaultdict(list)
    for row in rows:
        if row.get("event") == "step":
            steps.add(row)
        else:
            others[row.get("event")].append(row)
    if not steps.drivers:
        raise Unreadable("nothing had happened yet")
    if unknown := set(steps.drivers) - set(DRIVERS):
        raise Unreadable(f"driven by {', '.join(sorted(unknown))}, which this studio doesn't know")
    end = next(iter(others["end"]), None)
    return Recording(
        scene=scene_of(first["scene"]),
        begun=float(first["begun"]),
        versions=dict(first["versions"]),
        provenance=dict(first["provenance"]),
        views=tuple({row["step"]: _view(row) for row in others["view"]}.values()),
        plans=tuple(others["plan"]),
        comparisons=tuple(map(_comparison, others["comparison"])),
        marks=tuple(_marks(others["mark"])),
        **steps.arrays(),
        outcome=Outcome(end["outcome"]) if end else None,
        message=end["message"] if end else CUT_SHORT,
    )


class _Steps:
    """The rows of the steps as numbers: half an hour has 36,000 of them."""

    def __init__(self, state: str) -> None:
        """`state`: before the first step."""
        self._states = bytearray(unpack(state).tobytes())
        self._length = len(self._states)
        self._actions, self._proprio = array("d"), array("f")
        self._success = bytearray()
        self.drivers: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Raises ValueError, TypeError or KeyError for a row that is damaged."""
        state = unpack(row["state"]).tobytes()
        if (len(state), len(row["action"]), len(row["proprio"])) != (self._length, ACTION, PROPRIO):
            raise ValueError(f"step {row['step']} has other numbers")
        self._states += state
        self._actions.extend(row["action"])
        self._proprio.extend(row["proprio"])
        self._success.append(bool(row["success"]))
        self.drivers.append(sys.intern(row["driver"]))

    def arrays(self) -> dict[str, Any]:
        """The fields of a `Recording` that have an entry per step."""
        return {
            "actions": np.frombuffer(self._actions).reshape(-1, ACTION),
            "states": np.frombuffer(self._states, "<f8").reshape(len(self.drivers) + 1, -1),
            "proprio": np.frombuffer(self._proprio, np.float32).reshape(-1, PROPRIO),
            "drivers": tuple(self.drivers),
            "success": np.frombuffer(self._success, bool),
        }


def _marks(rows: Iterable[Mapping[str, Any]]) -> list[Mark]:
    marks: list[Mark] = []
    for row in rows:
        append_mark(marks, Mark(row["step"], row["kind"], row["text"]))
    return marks


def _comparison(row: Mapping[str, Any]) -> Comparison:
    return Comparison(**{f.name: row[f.name] for f in fields(Comparison)})


def _view(row: Mapping[str, Any]) -> Shown:
    return Shown(
        row["step"],
        row["instruction"],
        CameraPerturbation(**row["camera"]),
        LightPerturbation(**row["light"]),
        SensorNoise(**row["sensor"]),
    )


def scene_of(plain: Mapping[str, Any]) -> SceneSpec:
    """A scene from its JSON. Raises ValueError, TypeError or KeyError when it is none."""
    given = {f.name: plain[f.name] for f in fields(SceneSpec)}
    if not all(type(given[name]) is int for name in ("task", "init", "seed")):
        raise ValueError("a scene has whole numbers for task, init and seed")
    return SceneSpec(**given | {"robot": RobotStart(**plain["robot"])})
