"""Sweeps as jobs: form to command line, the points so far to a summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.evaluating import DEFAULT_CHECKPOINT, START
from studio.events import CAMERA_BOUNDS, SceneSpec
from studio.forms import fill, options
from studio.jobs import Job
from studio.sim import catalog
from studio.sweep import make_points, parse_args, read_sweep
from studio.workspace import Workspace, shown

KIND = "sweep"
OPTIONS = frozenset({"over", "suite", "task", "init", "seed", "size", "plans"})
MOVES = {"orbit": "orbit_horizontal", "distance": "distance"}


@dataclass(frozen=True, slots=True)
class SweepForm:
    """What the page asks; `studio.sweep` says what the options mean. Raises ValueError."""

    name: str = ""
    checkpoint: str = DEFAULT_CHECKPOINT
    over: str = "camera"  # or "words"
    suite: str = "libero_object"
    task: int = 0
    init: int = 40
    orbit_from: float = -60.0  # degrees
    orbit_to: float = 60.0
    distance_from: float = 60.0  # percent
    distance_to: float = 180.0
    size: int = 13  # points along each axis
    plans: int = 2  # per point
    seed: int = 0

    def __post_init__(self) -> None:
        catalog.check_scene(SceneSpec(self.suite, self.task, self.init, self.seed))
        for move, bounds in MOVES.items():
            low, high = CAMERA_BOUNDS[bounds]
            first, last = getattr(self, f"{move}_from"), getattr(self, f"{move}_to")
            if not low <= first < last <= high:
                raise ValueError(f"{move}: two numbers within [{low:g}, {high:g}], the first lower")
        if not (2 <= self.size <= 41 and 1 <= self.plans <= 64):
            raise ValueError("points along an axis: 2 to 41; plans: 1 to 64")


def command(values: Mapping[str, Any], workspace: Workspace, name: str) -> list[str]:
    """The argv of a sweep into the run folder `name`. Raises ValueError in one line."""
    form = fill(SweepForm, values)
    argv = [sys.executable, "-m", "studio.sweep", "--out", shown(workspace.runs / name)]
    argv += ["--checkpoint", shown(workspace.checkpoint(form.checkpoint))]
    for move in MOVES if form.over == "camera" else ():
        ends = (getattr(form, f"{move}_from"), getattr(form, f"{move}_to"))
        argv += [f"--{move}", *(f"{end:g}" for end in ends)]
    return argv + options(form, OPTIONS)


def planned(argv: list[str]) -> str:
    """How much a `command` asks for, in words. Raises ValueError."""
    args = parse_args(argv[START:])
    return f"{len(make_points(args))} points, {args.plans} plan{'s' * (args.plans != 1)} each"


def resume_flags(job: Job) -> list[str]:
    """None: the command finds by itself what is missing."""
    return []


def suggestion(values: Mapping[str, Any]) -> str:
    """What the name of a sweep begins with."""
    form = fill(SweepForm, values)
    return f"sweep-{form.over}-{form.suite.removeprefix('libero_')}-{form.task}"


def summary(job: Job) -> dict[str, Any]:
    """Points so far, how many are wanted, progress and seconds left."""
    try:
        found = read_sweep(job.folder)
    except ValueError:
        return {}
    done, total = len(found["points"]), found["total"]
    left = {} if job.eta_s is None else {"eta_s": job.eta_s}
    return {"done": done, "total": total, "progress": done / total, **left}


def settings(job: Job) -> dict[str, Any]:
    """Nothing is known of a sweep that was not started here."""
    return {}


def checkpoints(job: Job) -> list[str]:
    """A sweep writes none."""
    return []
