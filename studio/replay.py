"""Replay a recording in a simulator of its own: `python -m studio.replay FOLDER`.

From its actions the episode happens again, and each state is compared with the one on the tape:
the same versions give the same numbers, bit for bit. From the first state that differs (another
version of MuJoCo, say), or from the beginning with `--states`, the tape's states are put up
instead: what is seen is then what was seen, but for the 2 ms by which positions lag behind the
state while physics run. Either way FOLDER receives

    demo.hdf5     LIBERO's layout, one demonstration; `driver` (see `models.trajectory.DRIVERS`)
                  and `camera_pose`, agentview's [R | t] (world from camera, m), beside it
    replay.json   what the comparison found

Progress goes to stdout as JSON lines; bad input or a full disk is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.trajectory import DRIVERS
from models.whole import write_json
from studio import demos, recording
from studio.demonstrate import StepLog
from studio.events import SceneSpec
from studio.recording import Recording, Shown
from studio.sim import catalog
from studio.sim.libero_sim import LiberoSim

DEMO, REPORT = "demo.hdf5", "replay.json"
ACTIONS, STATES = "actions", "states"


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay found. `differs` is the first step before which the states were not equal."""

    source: str  # ACTIONS or STATES
    steps: int
    differs: int | None
    by: float  # largest difference there: m, rad, m/s or rad/s
    versions: Mapping[str, tuple[str | None, str | None]]  # that changed: on the tape, here

    @property
    def faithful(self) -> bool:
        """The actions alone made the episode again."""
        return self.source == ACTIONS and self.differs is None


def replay(
    sim: LiberoSim,
    tape: Recording,
    writer: demos.DemoWriter,
    source: str = ACTIONS,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[demos.Demonstration, Report]:
    """The episode as a demonstration, and how it compares; its pictures go to `writer`.

    `tell` hears of each step done.

    Raises ValueError when the scene does not exist here, or has other bodies and joints.
    """
    info = sim.load(tape.scene)
    log, poses = StepLog(sim, writer), []
    view, asked = None, info.instruction
    differs, by = None, 0.0
    for step, action in enumerate(tape.actions):
        if tape.view(step) is not view:
            view = tape.view(step)
            asked = _show(sim, view, asked)
        if source == ACTIONS and differs is None:
            by = _distance(sim.get_state(), tape.states[step])
            differs = step if by else None
        if source == STATES or differs is not None:
            sim.set_state(tape.states[step])
        poses.append(np.column_stack(sim.camera_pose()[::-1]))
        log.note(action, action)
        if source == ACTIONS and differs is None:
            sim.step(action)
        tell(step + 1)
    if source == ACTIONS and differs is None:  # what the last action led to
        by = _distance(sim.get_state(), tape.states[-1])
        differs = len(tape) if by else None
    report = Report(source, len(tape), differs, by, changed(tape.versions, sim.versions()))
    demo = log.demonstration(_attributes(tape, report) | sim.versions())
    codes = np.array([DRIVERS.index(driver) for driver in tape.drivers], np.uint8)
    extras = {"driver": codes, "camera_pose": np.stack(poses)}
    return replace(demo, extras=extras, success=bool(tape.success[-1])), report


def _show(sim: LiberoSim, view: Shown, asked: str) -> str:
    """See and ask as the tape says; returns what is asked now."""
    sim.set_camera(view.camera)
    sim.set_light(view.light)
    if view.instruction != asked:
        sim.ask(view.instruction)
    return view.instruction


def _distance(state: np.ndarray, other: np.ndarray) -> float:
    if state.shape != other.shape:
        raise ValueError(
            f"the tape's scene has {len(other)} numbers, here it has {len(state)}: "
            "it was recorded with another version of LIBERO"
        )
    return float(np.abs(state - other).max())


def changed(
    before: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """Versions that differ, by package: (on the tape, here)."""
    names = sorted({*before, *now})
    return {n: (before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)}


def _attributes(tape: Recording, report: Report) -> dict[str, Any]:
    """What is known of the episode beside its arrays."""
    scene, first = tape.scene, tape.views[0]
    return {
        "scene_task": scene.task,
        "init": scene.init,
        "seed": scene.seed,
        "scene": json.dumps(asdict(scene)),
        "instructions": json.dumps([[view.step, view.instruction] for view in tape.views]),
        "camera": json.dumps(asdict(first.camera)),
        "light": json.dumps(asdict(first.light)),
        "success": bool(tape.success[-1]),
        "outcome": str(tape.outcome or ""),
        "drivers": json.dumps(DRIVERS),
        "collected_by": "studio",
        "replayed_from": report.source if report.differs is None else f"{STATES}, after actions",
        "checkpoint": (tape.provenance.get("checkpoint") or {}).get("sha256") or "",
    }


def header(scene: SceneSpec, instruction: str, pixels: str) -> dict[str, str]:
    """What LIBERO's file says of its task; `instruction` is what was asked."""
    bddl_file = catalog.bddl_file(scene.suite, scene.task, scene.layout)
    return demos.task_header(bddl_file, instruction, pixels)


def pixels_of(tape: Recording) -> str:
    """The renderer that drew what its policy saw, and draws it again."""
    return (tape.provenance.get("checkpoint") or {}).get("pixels") or "fast"


def develop(folder: Path, source: str, tell: Callable[[int, int], None]) -> Report:
    """Replay the tape in `folder` and write what came of it beside it.

    Raises ValueError as `recording.read` and `replay` do, OSError when the disk is full.
    """
    tape = recording.read(folder)
    pixels = pixels_of(tape)
    sim, about = LiberoSim(pixels=pixels), header(tape.scene, tape.instructions[-1], pixels)
    try:
        with demos.one_file(folder / DEMO, about) as writer:
            demo, report = replay(sim, tape, writer, source, lambda done: tell(done, len(tape)))
            writer.finish(demo)
    finally:
        sim.close()
    write_json(folder / REPORT, asdict(report) | {"faithful": report.faithful})
    return report


def _tell(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.replay", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="of a recording: it holds tape.jsonl")
    parser.add_argument("--states", action="store_true", help="show the tape's states, no physics")
    arguments = parser.parse_args(argv)
    ended = "replay: it was ended by SIGTERM; try again"
    # what is half written goes away
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ended))
    try:
        report = develop(arguments.folder, STATES if arguments.states else ACTIONS, _tell)
    except (ValueError, OSError) as error:
        print(f"replay: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)
    print(json.dumps(asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
