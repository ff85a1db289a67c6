"""Collecting demonstrations as a job: form to command line, the files so far to a summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.ranges import parse_range
from studio import datasets
from studio.collect import PARTS, CollectConfig
from studio.forms import fill, options
from studio.jobs import Job
from studio.sim import catalog
from studio.workspace import Workspace, shown

KIND = "collect"
OPTIONS = frozenset(
    {"tasks", "inits", "noise", "noise_fraction", "workers", "seed"}
    | {"other_scenes", "misses", "regrasps", "beta", "relabel"}
)


@dataclass(frozen=True, slots=True)
class CollectForm:
    """What the page asks; `CollectConfig` says what the fields mean. Raises ValueError."""

    name: str = ""
    suite: str = "libero_object"
    tasks: str = ""  # such as 0-3,7; empty for all
    inits: str = "0-39"
    per_task: int = 25
    noise: float = 0.12
    noise_fraction: float = 0.67
    workers: int | None = None  # all cores
    seed: int = 0
    other_scenes: bool = False
    misses: bool = False
    regrasps: bool = False
    dagger: str = ""  # checkpoint whose policy drives first
    beta: float = 0.0
    relabel: bool = False

    def config(self, out: Path, held_out: bool = False) -> CollectConfig:
        """Checked as the command will check it. Raises ValueError."""
        known = range(len(catalog.tasks(self.suite)))
        return CollectConfig(
            out=out,
            suite=self.suite,
            tasks=tuple(parse_range(self.tasks) if self.tasks else known),
            inits=tuple(parse_range(self.inits)),
            per_task=self.per_task,
            noise=self.noise,
            noise_fraction=self.noise_fraction,
            workers=self.workers or 1,
            seed=self.seed,
            other_scenes=self.other_scenes,
            misses=self.misses,
            regrasps=self.regrasps,
            held_out=held_out,
        )


def command(values: Mapping[str, Any], workspace: Workspace, name: str) -> list[str]:
    """The argv of a collection into the run folder `name`. Raises ValueError in one line."""
    form = fill(CollectForm, values)
    form.config(workspace.runs / name)
    argv = [sys.executable, "-m", "studio.collect", "--suite", form.suite]
    argv += ["--out", shown(workspace.runs / name), "--per-task", str(form.per_task)]
    if (form.beta or form.relabel) and not form.dagger:
        raise ValueError("the expert's share and relabelling go with a policy; choose one")
    if form.beta and form.relabel:
        raise ValueError("relabelled, the policy drives alone: leave the expert's share at 0")
    if form.misses and form.dagger:
        raise ValueError("a policy and a missed grasp can't both come first; choose one")
    if form.dagger:
        argv += ["--dagger", shown(workspace.checkpoint(form.dagger))]
    return argv + options(form, OPTIONS)


def resume_flags(job: Job) -> list[str]:
    """None: the command finds by itself what is missing."""
    return []


def suggestion(values: Mapping[str, Any]) -> str:
    """What the name of a collection begins with."""
    return fill(CollectForm, values).suite


def summary(job: Job) -> dict[str, Any]:
    """Demonstrations so far, how many are wanted, progress and seconds left."""
    config = fill(CollectForm, job.values).config(job.folder, held_out=True)
    total = len(config.tasks) * config.per_task
    joined = sum(row["demos"] for row in datasets.contents(job.folder))
    done = joined + len(list(job.folder.glob(f"{PARTS}/*/demo_*.hdf5")))
    result: dict[str, Any] = {"done": done, "total": total, "progress": done / total}
    if (left := job.eta_s) is not None:
        result["eta_s"] = left
    return result


def settings(job: Job) -> dict[str, Any]:
    """Nothing is known of a collection that was not started here."""
    return {}


def checkpoints(job: Job) -> list[str]:
    """A collection writes none."""
    return []
