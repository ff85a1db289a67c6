"""Training as a job: the page's form to a command line, a run's metrics to a summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.config import HUB, preset
from models.run import SETTINGS, STATE
from models.schedule import TrainConfig
from studio.forms import fill, options
from studio.intervals import wilson
from studio.jobs import METRICS, Job, read_rows
from studio.remembered import Remembered, stamp
from studio.workspace import Workspace, shown

KIND = "train"
# fields of TrainConfig that are no options of the command line
FIXED = frozenset({"grad_clip", "sampler"})
TUNED = tuple(name for name in TrainConfig.__slots__ if name not in FIXED)


@dataclass(frozen=True, slots=True)
class TrainForm:
    """What the form holds beside the fields of `TrainConfig`. Raises ValueError."""

    name: str = ""
    data: str = ""
    preset: str = "eb-vla-tiny"
    head: str = "energy"
    init: str = ""  # checkpoint to start from
    pretrained: str = ""  # of eb-vla-0.5b: "hub", or the folder with its parts
    stride: int = 2  # a sample every n-th step
    threads: int | None = None  # all cores
    device: str = "auto"

    def __post_init__(self) -> None:
        replace(preset(self.preset), head=self.head)
        if self.stride < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("stride and threads must be at least 1")


FIELDS = ("preset", "head", "data", "init", "stride", *TUNED)  # that a run writes down


def command(values: Mapping[str, Any], workspace: Workspace, name: str) -> list[str]:
    """The argv of a run called `name`. Raises ValueError, in one line, for a bad form."""
    form, config = fill(TrainForm, values), fill(TrainConfig, values)
    if not form.data:
        raise ValueError("choose a folder of demonstrations; the tab Collect makes some")
    if not (data := workspace.inside(form.data)).is_dir():
        raise ValueError(f"{form.data}: there is no such folder")
    argv = [sys.executable, "-m", "models.train", "--preset", form.preset]
    argv += ["--data", shown(data), "--out", shown(workspace.runs / name)]
    if form.init:
        argv += ["--init", shown(workspace.checkpoint(form.init))]
    if form.pretrained:
        folder = form.pretrained != HUB
        parts = shown(workspace.inside(form.pretrained)) if folder else HUB
        argv += ["--pretrained", parts]
    elif preset(form.preset).has_pretrained_parts and not form.init:
        raise ValueError(f"{form.preset} starts from pretrained parts; write hub, or their folder")
    argv += options(form, {"head", "stride", "threads", "device"})
    return argv + options(config, TUNED)


def resume_flags(job: Job) -> list[str]:
    """`--resume`, once there is a saved state; a run that failed before starts again."""
    return ["--resume"] if (job.folder / STATE).is_file() else []


def suggestion(values: Mapping[str, Any]) -> str:
    """What the name of a run begins with."""
    form = fill(TrainForm, values)
    name = form.preset.removeprefix("eb-vla-")
    return name if form.head == "energy" else f"{name}-{form.head}"


def summary(job: Job) -> dict[str, Any]:
    """The latest value of every metric, and `best_val_l1`; {} before the first line.

    `success_interval` is Wilson's, of the `successes` in so many `episodes`.
    """
    file = job.folder / METRICS
    try:
        return _SUMMARIES.get(file, stamp(file), lambda: _summary(file))
    except FileNotFoundError:
        return {}


_SUMMARIES: Remembered[dict[str, Any]] = Remembered()


def _summary(file: Path) -> dict[str, Any]:
    latest: dict[str, Any] = {}
    best = None
    for row in read_rows(file)[0]:
        latest |= {name: value for name, value in row.items() if value is not None}
        if (score := row.get("val_l1")) is not None:
            best = score if best is None else min(best, score)
    if best is not None:
        latest["best_val_l1"] = best
    if latest.get("episodes"):
        latest["success_interval"] = wilson(latest["successes"], latest["episodes"])
    return latest


def settings(job: Job) -> dict[str, Any]:
    """The form, as far as it tells, of a run that was started on the command line."""
    try:
        found = json.loads((job.folder / SETTINGS).read_text())
    except (OSError, ValueError):
        return {}
    told = found.get("train", {}) | found
    return {name: told[name] for name in FIELDS if name in told}


def checkpoints(job: Job) -> list[str]:
    """Names of the checkpoints that the run has written: of best, last."""
    return [name for name in ("best", "last") if (job.folder / name / "config.json").is_file()]
