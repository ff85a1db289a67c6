"""Keeping an episode: everything that happened, as JSONL + NPZ in one ZIP file.

`Recorder` is a subscriber that gathers the running episode; `write_zip` puts a finished or a
running one on disk, `studio.movie.write_mp4` makes the film. Files appear whole or not at all.
A person may drive for half an hour: steps, plans and pictures lie in spools, and the files are
written from them one by one.
"""

from __future__ import annotations

import heapq
import json
import logging
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO

import numpy as np

from models.types import Plan
from models.whole import whole_file
from studio.events import Advice, Comparison, EpisodeEvent, Frame, Mark, StepEvent
from studio.feed import PlanRecord, append_mark
from studio.spool import Spool
from studio.state import LoopState

log = logging.getLogger(__name__)


class NothingRecorded(RuntimeError):
    """There is no episode to write yet."""


@dataclass
class Episode:
    """One episode as it happened. `frames` are the pictures that were rendered, in order.

    `problem` says from which step on something is missing, if the disk was full.
    """

    begin: EpisodeEvent
    provenance: dict[str, object]
    end: EpisodeEvent | None = None
    steps: Spool[StepEvent] = field(default_factory=Spool)
    plans: Spool[PlanRecord] = field(default_factory=Spool)
    frames: Spool[Frame] = field(default_factory=Spool)
    marks: list[Mark] = field(default_factory=list)
    advice: dict[int, Advice] = field(default_factory=dict)  # by plan, where somebody asked for it
    comparisons: list[Comparison] = field(default_factory=list)  # of a person's chunks
    problem: str = ""

    @property
    def mean_final_energy(self) -> float | None:
        """Mean over plans of E(a^(K), C); None before the first plan and without an energy."""
        energies = [record.plan.final_energy for record in self.plans if record.plan.trace]
        return round(float(np.mean(energies)), 6) if energies else None


class Recorder:
    """Gathers the running episode. `provenance` (checkpoint hash, versions …) is stored with it."""

    def __init__(self, provenance: dict[str, object]) -> None:
        self._provenance = provenance
        self._lock = threading.Lock()
        self._episode: Episode | None = None

    def episode(self) -> Episode:
        """A copy of the newest episode. Raises NothingRecorded before the first step."""
        with self._lock:
            episode = self._episode
            if episode is None or not episode.steps:
                raise NothingRecorded("Nothing is recorded yet: run the scene first.")
            spools = {n: getattr(episode, n).so_far() for n in ("steps", "plans", "frames")}
            copies = {n: getattr(episode, n).copy() for n in ("marks", "comparisons", "advice")}
            return replace(episode, **spools, **copies)

    # -- Subscriber ---------------------------------------------------------------------------
    def on_episode(self, event: EpisodeEvent) -> None:
        with self._lock:
            if event.outcome is None:
                self._episode = Episode(event, dict(self._provenance))
            elif self._episode:
                self._episode.end = event

    def on_step(self, event: StepEvent) -> None:
        self._append("steps", replace(event, plan=None, frame=None))  # kept apart

    def on_plan(self, step: int, plan: Plan) -> None:
        if self._episode:
            self._append("plans", PlanRecord(len(self._episode.plans), step, plan))

    def on_mark(self, mark: Mark) -> None:
        with self._lock:
            if self._episode and not self._episode.end:
                append_mark(self._episode.marks, mark)

    def on_frame(self, frame: Frame) -> None:
        """After the end the scene may still be looked at; only its last step may be missing."""
        episode = self._episode
        over = episode and episode.end and episode.frames
        if not (over and episode.frames[-1].step == frame.step):
            self._append("frames", frame)

    def on_state(self, state: LoopState) -> None:
        """The state is in the other events already."""

    def on_advice(self, record: PlanRecord, advice: Advice) -> None:
        """Keep what the expert would have done instead of a plan, if that is of this episode."""
        with self._lock:
            plans = self._episode.plans if self._episode else ()
            if record.index < len(plans) and _same(plans[record.index], record):
                self._episode.advice[record.index] = advice

    def on_comparison(self, comparison: Comparison) -> None:
        """Keep what the policy thinks of a person's chunk, if that is of this episode."""
        self._append("comparisons", comparison)

    def _append(self, name: str, item: object) -> None:
        """Keep an item of the running episode; a full disk costs no more than what did not fit."""
        with self._lock:
            if self._episode is None:
                return
            try:
                getattr(self._episode, name).append(item)
            except OSError as error:
                if not self._episode.problem:
                    self._episode.problem = f"{error.strerror}: {name} from here on may be missing"
                    log.error("recorder: %s", self._episode.problem)


def _same(one: PlanRecord, other: PlanRecord) -> bool:
    """Whether two records, one read from a spool, are of one plan."""
    marks = [(record.step, record.plan.seed, record.plan.latency_s) for record in (one, other)]
    return marks[0] == marks[1]


# -- JSONL + NPZ --------------------------------------------------------------------------------
def event_lines(episode: Episode) -> Iterator[dict[str, object]]:
    """The episode as JSON-able events in the order of their steps."""
    yield {"event": "episode", **asdict(episode.begin), "provenance": episode.provenance}
    plans = ((p.step, 1, _plan_row(p, episode.advice.get(p.index))) for p in episode.plans)
    marks = ((m.step, 0, {"event": "mark", **asdict(m)}) for m in episode.marks)
    compared = ((c.step, 1, {"event": "comparison", **asdict(c)}) for c in episode.comparisons)
    steps = ((s.step - 1, 2, step_row(s)) for s in episode.steps)
    for *_, row in heapq.merge(plans, marks, compared, steps, key=lambda row: row[:2]):
        yield row
    if episode.problem:
        yield {"event": "problem", "message": episode.problem}
    if episode.end:
        yield {
            "event": "end",
            **asdict(episode.end),
            "mean_final_energy": episode.mean_final_energy,
        }


def _plan_row(record: PlanRecord, advice: Advice | None) -> dict[str, object]:
    plan = record.plan
    expert = {"expert_energy": advice.energy, "expert_phase": advice.phase} if advice else {}
    return {
        "event": "plan",
        "index": record.index,
        "step": record.step,
        "instruction": plan.observation.instruction,
        "initial_energy": plan.initial_energy,
        "final_energy": plan.final_energy,
        "energy_gap": plan.energy_gap,
        "context_distance": plan.context_distance,
        "chain": plan.chain,
        "seed": plan.seed,
        "sampler": asdict(plan.sampler),
        "latency_s": plan.latency_s,
        "round_trip_s": plan.round_trip_s,
        **expert,
    }


def step_row(event: StepEvent) -> dict[str, object]:
    """A step as an event of a file."""
    return {
        "event": "step",
        "step": event.step,
        "driver": event.driver,
        "action": np.asarray(event.action, float).tolist(),
        "proprio": np.asarray(event.proprio, float).tolist(),
        "success": bool(event.success),
    }


def plan_arrays(record: PlanRecord, advice: Advice | None) -> dict[str, np.ndarray]:
    """A plan's trace, read-out, pictures and proprio under `plan_000/<field>`.

    `chunk` and, where somebody asked for it, `expert` are actions [H, 7] in environment scale.
    """
    plan = record.plan
    traced = fields(plan.trace) if plan.trace else ()
    arrays = {f.name: getattr(plan.trace, f.name) for f in traced}
    arrays |= {"chunk": plan.actions, "proprio": plan.observation.proprio}
    arrays |= plan.observation.images
    if plan.readout is not None:
        arrays["readout"] = plan.readout
    if advice is not None:
        arrays["expert"] = advice.actions
    return {f"plan_{record.index:03d}/{name}": array for name, array in arrays.items()}


def write_zip(episode: Episode, path: Path) -> Path:
    """`episode.jsonl` (one event a line) and `plans.npz` (see `plan_arrays`) in one ZIP file."""
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        lines = zipfile.ZipInfo("episode.jsonl", time.localtime()[:6])
        lines.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(lines, "w", force_zip64=True) as out:
            for row in event_lines(episode):
                out.write(json.dumps(row).encode() + b"\n")
        with tempfile.TemporaryFile() as npz:
            _write_npz(episode, npz)
            npz.seek(0)
            with archive.open("plans.npz", "w", force_zip64=True) as out:
                shutil.copyfileobj(npz, out)
    return path


def _write_npz(episode: Episode, file: IO[bytes]) -> None:
    """As `np.savez_compressed` does, a plan at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in episode.plans:
            for name, array in plan_arrays(record, episode.advice.get(record.index)).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, np.asanyarray(array), allow_pickle=False)
