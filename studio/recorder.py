"""Keeping an episode: everything that happened, as JSONL + NPZ in one ZIP file.

`Recorder` is a subscriber that gathers the running episode; `write_zip` puts a finished or a
running one on disk, `studio.movie.write_mp4` makes the film. Files appear whole or not at all.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import secrets
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.types import Plan
from studio.events import Advice, Comparison, EpisodeEvent, Frame, Mark, StepEvent
from studio.feed import PlanRecord, append_mark
from studio.state import LoopState

MAX_FRAMES = 2000  # an episode has at most 520 steps; a camera dragged in a pause adds its own


class NothingRecorded(RuntimeError):
    """There is no episode to write yet."""


@dataclass
class Episode:
    """One episode as it happened. `frames` are the pictures that were rendered, in order."""

    begin: EpisodeEvent
    provenance: dict[str, object]
    end: EpisodeEvent | None = None
    steps: list[StepEvent] = field(default_factory=list)
    plans: list[PlanRecord] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    advice: dict[int, Advice] = field(default_factory=dict)  # by plan, where somebody asked for it
    comparisons: list[Comparison] = field(default_factory=list)  # of a person's chunks

    @property
    def mean_final_energy(self) -> float:
        """Mean over plans of E(a^(K), C); NaN before the first plan."""
        energies = [record.plan.final_energy for record in self.plans if record.plan.trace]
        return float(np.mean(energies)) if energies else float("nan")


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
            lists = ("steps", "plans", "marks", "frames", "comparisons")
            copies = {name: list(getattr(episode, name)) for name in lists} | {
                "advice": dict(episode.advice)
            }
            return dataclasses.replace(episode, **copies)

    # -- Subscriber ---------------------------------------------------------------------------
    def on_episode(self, event: EpisodeEvent) -> None:
        with self._lock:
            if event.outcome is None:
                self._episode = Episode(event, dict(self._provenance))
            elif self._episode:
                self._episode.end = event

    def on_step(self, event: StepEvent) -> None:
        self._append("steps", dataclasses.replace(event, frame=None))  # frames are kept apart

    def on_plan(self, step: int, plan: Plan) -> None:
        self._append("plans", PlanRecord(step, plan))

    def on_mark(self, mark: Mark) -> None:
        with self._lock:
            if self._episode:
                append_mark(self._episode.marks, mark)

    def on_frame(self, frame: Frame) -> None:
        if self._episode and len(self._episode.frames) < MAX_FRAMES:
            self._append("frames", frame)

    def on_state(self, state: LoopState) -> None:
        """The state is in the other events already."""

    def on_advice(self, plan: Plan, advice: Advice) -> None:
        """Keep what the expert would have done instead of `plan`, if that is of this episode."""
        with self._lock:
            plans = self._episode.plans if self._episode else []
            for index, record in enumerate(plans):
                if record.plan is plan:
                    self._episode.advice[index] = advice

    def on_comparison(self, comparison: Comparison) -> None:
        """Keep what the policy thinks of a person's chunk, if that is of this episode."""
        self._append("comparisons", comparison)

    def _append(self, name: str, item: object) -> None:
        with self._lock:
            if self._episode:
                getattr(self._episode, name).append(item)


# -- JSONL + NPZ --------------------------------------------------------------------------------
def event_lines(episode: Episode) -> Iterator[dict[str, object]]:
    """The episode as JSON-able events in the order of their steps."""
    yield {"event": "episode", **_plain(episode.begin), "provenance": episode.provenance}
    rows = [
        (p.step, 1, _plan_row(i, p, episode.advice.get(i))) for i, p in enumerate(episode.plans)
    ]
    rows += [(m.step, 0, {"event": "mark", **_plain(m)}) for m in episode.marks]
    rows += [(c.step, 1, {"event": "comparison", **_plain(c)}) for c in episode.comparisons]
    rows += [(s.step - 1, 2, _step_row(s)) for s in episode.steps]
    for *_, row in sorted(rows, key=lambda row: row[:2]):
        yield row
    if episode.end:
        yield {
            "event": "end",
            **_plain(episode.end),
            "mean_final_energy": (episode.mean_final_energy if episode.plans else None),
        }


def _plan_row(index: int, record: PlanRecord, advice: Advice | None) -> dict[str, object]:
    plan = record.plan
    expert = {"expert_energy": advice.energy, "expert_phase": advice.phase} if advice else {}
    return {
        "event": "plan",
        "index": index,
        "step": record.step,
        "instruction": plan.observation.instruction,
        "initial_energy": plan.initial_energy,
        "final_energy": plan.final_energy,
        "energy_gap": plan.energy_gap,
        "context_distance": plan.context_distance,
        "chain": plan.chain,
        "seed": plan.seed,
        "sampler": _plain(plan.sampler),
        "latency_s": plan.latency_s,
        "round_trip_s": plan.round_trip_s,
        **expert,
    }


def _step_row(event: StepEvent) -> dict[str, object]:
    return {
        "event": "step",
        "step": event.step,
        "driver": event.driver,
        "action": np.asarray(event.action, float).tolist(),
        "proprio": np.asarray(event.proprio, float).tolist(),
        "success": bool(event.success),
    }


def _plain(value: object) -> dict[str, object]:
    return dataclasses.asdict(value)


def plan_arrays(episode: Episode) -> dict[str, np.ndarray]:
    """Every plan's trace, read-out, pictures and proprio under `plan_000/<field>`.

    `chunk` and, where somebody asked for it, `expert` are actions [H, 7] in environment scale.
    """
    arrays: dict[str, np.ndarray] = {}
    for index, record in enumerate(episode.plans):
        plan, prefix = record.plan, f"plan_{index:03d}"
        fields = {f.name: getattr(plan.trace, f.name) for f in dataclasses.fields(plan.trace)}
        arrays |= {f"{prefix}/{name}": array for name, array in fields.items()}
        arrays[f"{prefix}/chunk"] = plan.actions
        arrays[f"{prefix}/proprio"] = plan.observation.proprio
        for camera, image in plan.observation.images.items():
            arrays[f"{prefix}/{camera}"] = image
        if plan.readout is not None:
            arrays[f"{prefix}/readout"] = plan.readout
        if index in episode.advice:
            arrays[f"{prefix}/expert"] = episode.advice[index].actions
    return arrays


def write_zip(episode: Episode, path: Path) -> Path:
    """`episode.jsonl` (one event a line) and `plans.npz` (see `plan_arrays`) in one ZIP file."""
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        lines = "".join(json.dumps(row) + "\n" for row in event_lines(episode))
        archive.writestr("episode.jsonl", lines, zipfile.ZIP_DEFLATED)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **plan_arrays(episode))
        archive.writestr("plans.npz", buffer.getvalue())
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    temporary.touch(exist_ok=False)  # with the umask's mode, unlike the tempfile module's
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
