"""Evaluation runs as jobs: form to command line, a run's journal to a summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from models.ranges import parse_range
from studio import trials
from studio.evaluate import make_trials, parse_args
from studio.events import Outcome
from studio.forms import fill, options
from studio.jobs import Job, read_rows
from studio.perturbations import DIFFICULTIES
from studio.places import CHECKPOINT
from studio.remembered import Remembered, stamp
from studio.results import JOURNAL, TABLE, read_settings
from studio.sim import catalog
from studio.trial import NOMINAL, key_of
from studio.workspace import Workspace, shown

KIND = "evaluate"
DEFAULT_CHECKPOINT = shown(CHECKPOINT)
START = 3  # of the arguments, after python -m MODULE
OPTIONS = frozenset(
    {"suite", "tasks", "inits", "episodes", "seed", "chains", "workers", "perturb", "views"}
    | {"difficulty"}
)


@dataclass(frozen=True, slots=True)
class EvaluateForm:
    """What the page asks; `studio.evaluate` says what the options mean. Raises ValueError."""

    name: str = ""
    checkpoint: str = DEFAULT_CHECKPOINT
    suite: str = "libero_object"  # several with commas
    perturb: str = NOMINAL
    tasks: str = ""  # such as 0-3,7; empty for all
    inits: str = "40-44"
    episodes: int | None = None  # all
    views: int | None = None  # perturbations; of the camera all
    difficulty: str = "1-5"
    chains: int = 1
    workers: int | None = None  # all cores
    seed: int = 0

    def __post_init__(self) -> None:
        for suite in self.suite.split(","):
            count = len(catalog.tasks(suite))
            if self.tasks and not set(parse_range(self.tasks)) <= set(range(count)):
                raise ValueError(f"tasks: {suite} has the tasks 0-{count - 1}")
        parse_range(self.inits)
        if not set(parse_range(self.difficulty)) <= set(DIFFICULTIES):
            raise ValueError(f"difficulty: {self.difficulty} is not within 1-5")
        if self.perturb not in trials.KINDS:
            raise ValueError(f"perturb: {self.perturb!r}; choose one of {', '.join(trials.KINDS)}")
        seen = {view.suite for view in catalog.libero_plus_views()}
        if self.perturb == "camera" and (without := set(self.suite.split(",")) - seen):
            raise ValueError(f"camera: LIBERO-Plus has no views of {', '.join(sorted(without))}")
        for name in ("episodes", "views", "chains", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")


def command(values: Mapping[str, Any], workspace: Workspace, name: str) -> list[str]:
    """The argv of an evaluation into the run folder `name`.

    Raises ValueError, in one line, for a bad form and for episodes that there are not.
    """
    if values.get("suite") == "":
        raise ValueError("choose at least one suite")
    form = fill(EvaluateForm, values)
    argv = [sys.executable, "-m", "studio.evaluate", "--out", shown(workspace.runs / name)]
    argv += ["--checkpoint", shown(workspace.checkpoint(form.checkpoint))]
    unasked = {"views", "difficulty"} if form.perturb == NOMINAL else set()
    argv += options(form, OPTIONS - unasked)
    _episodes(tuple(argv[START:]))
    return argv


def planned(argv: list[str]) -> str:
    """How much a `command` asks for, in words. Raises ValueError like it."""
    count = _episodes(tuple(argv[START:]))
    return f"{count} episode{'s' * (count != 1)}"


@lru_cache(maxsize=64)
def _episodes(arguments: tuple[str, ...]) -> int:
    return len(make_trials(parse_args(list(arguments))))


def resume_flags(job: Job) -> list[str]:
    """None: the command finds by itself what is missing."""
    return []


def suggestion(values: Mapping[str, Any]) -> str:
    """What the name of an evaluation begins with."""
    form = fill(EvaluateForm, values)
    stem = form.suite.replace("libero_", "").replace(",", "-")
    return stem if form.perturb == NOMINAL else f"{stem}-{form.perturb}"


def summary(job: Job) -> dict[str, Any]:
    """Episodes so far by outcome, what made them, how many are wanted, progress, seconds left."""
    asked = settings(job)
    outcomes = _outcomes(job.folder, asked.get("sha256"))
    wins, errors = outcomes.count(Outcome.SUCCESS), outcomes.count(Outcome.ERROR)
    done = len(outcomes) - errors
    found: dict[str, Any] = {"done": done, "successes": wins, "errors": errors}
    if "sha256" in asked:
        found |= {"sha256": asked["sha256"], "chains": asked.get("chains", 1)}
    if total := asked.get("total"):
        found |= {"total": total, "progress": done / total}
    if (left := job.eta_s) is not None:
        found["eta_s"] = left
    return found


def _outcomes(folder: Path, sha256: str | None) -> list[str]:
    """How the checkpoint's episodes ended so far, at their last try.

    Folders that come with the studio have the table alone.
    """
    journal, table = folder / JOURNAL, folder / TABLE
    file = table if table.is_file() and not journal.is_file() else journal
    try:
        return _OUTCOMES.get((file, sha256), stamp(file), lambda: _read(file, sha256))
    except FileNotFoundError:
        return []


_OUTCOMES: Remembered[list[str]] = Remembered()


def _read(file: Path, sha256: str | None) -> list[str]:
    if file.name == TABLE:
        return pq.read_table(file, columns=["outcome"])["outcome"].to_pylist()
    rows = {key_of(row): row for row in read_rows(file)[0]}
    return [r.get("outcome") for r in rows.values() if r.get("checkpoint", sha256) == sha256]


def settings(job: Job) -> dict[str, Any]:
    """What the command has written of itself."""
    return read_settings(job.folder)


def checkpoints(job: Job) -> list[str]:
    """An evaluation writes none."""
    return []
