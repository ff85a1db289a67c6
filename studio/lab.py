"""The OOD lab's questions, answered from the rows of evaluation runs.

A selection is some runs of one checkpoint, and a filter on their episodes. Nominal and perturbed
episodes are told by what each row says of itself, so one run may hold both.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from studio import detection, failure, published, results, success
from studio.detection import DEFAULT_K, Sides, Study, TooFew, camera_move
from studio.events import CameraPerturbation, LightPerturbation, Outcome, SensorNoise
from studio.measures import MEAN, PLAN, asked, finished
from studio.scores import PAPER, SCORES
from studio.sim import catalog
from studio.trial import NOMINAL, key_of
from studio.viz import lab as figures

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """Run folders, and which of their episodes; "" is any. Raises ValueError in `rows`."""

    folders: tuple[Path, ...]
    suite: str = ""
    task: str = ""
    difficulty: str = ""
    move: str = ""  # of the camera

    def rows(self) -> list[Row]:
        """The episodes that the filter leaves. Nominal ones have no difficulty and no move."""
        chains = {results.read_settings(folder).get("chains", 1) for folder in self.folders}
        if len(chains) > 1:
            raise ValueError("these runs have different numbers of chains; compare like with like")
        rows = [row for folder in self.folders for row in run_rows(folder) if self._keeps(row)]
        # Runs may share episodes; one counts once.
        return list({(row.get("checkpoint"), key_of(row)): row for row in rows}.values())

    def _keeps(self, row: Row) -> bool:
        if self.suite not in ("", row["suite"]) or self.task not in ("", str(row["task"])):
            return False
        if row["kind"] == NOMINAL:
            return True
        move = camera_move(row["camera"]) or ""
        return self.difficulty in ("", str(row["difficulty"])) and self.move in ("", move)


def run_rows(folder: Path) -> list[Row]:
    """The finished episodes of a run, of the checkpoint that it is of; kept until it changes."""
    sizes = [
        (name, file.stat().st_size, file.stat().st_mtime_ns)
        for name in (results.JOURNAL, results.TABLE, results.SETTINGS)
        if (file := folder / name).is_file()
    ]
    return _run_rows(folder, tuple(sizes))


@lru_cache(maxsize=64)
def _run_rows(folder: Path, sizes: tuple) -> list[Row]:
    rows, settings = results.read_rows(folder), results.read_settings(folder)
    return results.of_checkpoint(rows, settings["sha256"]) if "sha256" in settings else rows


def sides(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """(nominal, perturbed). Raises ValueError when they are of several checkpoints."""
    rows = finished(rows)
    if len({row["checkpoint"] for row in rows}) > 1:
        raise ValueError("these runs are of different checkpoints; compare one with itself")
    perturbed = [row for row in rows if row["kind"] != NOMINAL]
    return [row for row in rows if row["kind"] == NOMINAL], perturbed


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a selection: which score, in which unit, at which k."""

    selection: Selection
    score: str = PAPER
    unit: str = MEAN
    scaled: bool = False
    k: float = DEFAULT_K

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(f"unknown score {self.score!r}: choose one of {', '.join(SCORES)}")


def answer(question: Question) -> dict[str, Any]:
    """Figures and numbers of a study at one k, or why there are none yet. Raises ValueError."""
    nominal, perturbed = sides(question.selection.rows())
    counts = {"nominal": len(nominal), "perturbed": len(perturbed)}
    try:
        measured, told = _study(_Rows(nominal, perturbed), question.score, question.unit,
                                question.scaled)  # fmt: skip
    except TooFew as few:
        return {**counts, "figures": {}, "problem": str(few)}
    threshold = told.mu + question.k * told.sigma
    confusion = measured.verdicts(threshold)
    label = axis_label(question)
    everything = told.everything
    return {
        **counts,
        "mu": told.mu,
        "sigma": told.sigma,
        "threshold": threshold,
        "confusion": confusion.plain(),
        "chosen_k": told.chosen and told.chosen.multiplier,
        "held_out": everything.held_out and everything.held_out.plain(),
        "figures": {
            "histogram": figures.histogram_figure(
                measured.nominal_values, measured.perturbed_values, label, threshold, told.mu
            ),
            "roc": figures.roc_figure(
                told.curve.fpr,
                told.curve.tpr,
                (confusion.false_positive_rate, confusion.true_positive_rate),
                f"AUROC {everything.auroc:.3f} ({everything.low:.3f} – {everything.high:.3f})",
            ),
            "episodes": _episodes_figure(question, measured, threshold),
        },
    }


@dataclass(frozen=True, slots=True)
class _Rows:
    """Two lists of rows that a cache can tell from others: rows are made once and kept."""

    nominal: list[Row]
    perturbed: list[Row]

    def __hash__(self) -> int:
        return hash((tuple(map(id, self.nominal)), tuple(map(id, self.perturbed))))


@lru_cache(maxsize=16)
def _study(rows: _Rows, score: str, unit: str, scaled: bool) -> tuple[Sides, Study]:
    asked = (rows.nominal, rows.perturbed, score, unit, scaled)
    return detection.measure(*asked), detection.study(*asked)


def axis_label(question: Question) -> str:
    """What the scores' axis is called."""
    unit = "each plan" if question.unit == PLAN else f"{question.unit} of a rollout"
    scale = ", in σ of its task" if question.scaled else ""
    return f"{SCORES[question.score].label}, {unit}{scale}"


def _episodes_figure(question: Question, measured: Sides, threshold: float) -> figures.Figure:
    """A mark per episode; what judges single plans is no line for their means."""
    of_plans = question.unit == PLAN
    label = axis_label(replace(question, unit=MEAN) if of_plans else question)
    return figures.episodes_figure(_columns(measured), label, None if of_plans else threshold)


def _columns(measured: Sides) -> dict[str, list[dict[str, Any]]]:
    """Episodes for the figure, by what is perturbed and how hard."""
    columns: dict[str, list[dict[str, Any]]] = {}
    for side in measured.both:
        for row, values in zip(side.rows, side.plans, strict=True):
            level = f" {row['difficulty']}" if row["difficulty"] is not None else ""
            column = "nominal" if row["kind"] == NOMINAL else f"{row['kind']}{level}"
            known = values[np.isfinite(values)]
            columns.setdefault(column, []).append(
                {
                    "score": float(known.mean()),
                    "text": describe(row),
                    "success": row["outcome"] == Outcome.SUCCESS,
                    "perturbed": row["kind"] != NOMINAL,
                    "id": json.dumps(scene_of(row)),
                }
            )
    return dict(sorted(columns.items(), key=lambda item: (item[0] != "nominal", item[0])))


def describe(row: Row) -> str:
    """An episode in a line."""
    return f"{row['suite']} {row['task']} · {_words(row)} · init {row['init']} · {row['outcome']}"


def scene_of(row: Row) -> dict[str, Any]:
    """What Live needs to play the episode again; what is nominal is left out."""
    scene = {name: row[name] for name in ("suite", "task", "init", "seed", "goal", "layout")}
    scene["robot"] = row["robot"]
    seen = {
        name: row[name]
        for name, form in (("camera", CameraPerturbation), ("light", LightPerturbation),
                           ("sensor", SensorNoise))
        if row[name] != asdict(form())
    }  # fmt: skip
    return {"scene": scene, "instruction": _words(row), **seen}


def _words(row: Row) -> str:
    """What the robot was asked for."""
    return row["instruction"] or catalog.task(*asked(row)).instruction


def tables(question: Question) -> dict[str, Any]:
    """Operating points, groups, every score, success and failure prediction, each where it can be.

    The published figures stand beside them. Raises ValueError.
    """
    rows = question.selection.rows()
    nominal, perturbed = sides(rows)
    found: dict[str, Any] = {
        "labels": {name: score.label for name, score in SCORES.items()},
        "published": {
            "success": asdict(published.SUCCESS),
            "study": asdict(published.DETECTION),
            "failure": asdict(published.FAILURE),
        },
        "success": {"nominal": _rates(nominal), "perturbed": _rates(perturbed)},
        "failure": {},
    }
    for name, predictor in failure.PREDICTORS.items():
        try:
            found["failure"][name] = failure.predict(rows, predictor).plain()
        except ValueError as error:
            found["failure"][name] = {"problem": str(error)}
    try:
        asked = question.score, question.unit, question.scaled
        _, told = _study(_Rows(nominal, perturbed), *asked)
        found["study"] = told.plain() | {"curve": None}
        lines = detection.compare(nominal, perturbed, question.unit)
        found["scores"] = [line.plain() for line in lines]
    except TooFew as few:
        found["problem"] = str(few)
    return found


def _rates(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [asdict(rate) | {"interval": rate.interval} for rate in success.rates(rows)]


def episodes_csv(rows: Sequence[Row]) -> str:
    """One line per plan: what identifies its episode, how that ended, and every score."""
    scene = ("suite", "task", "init", "seed", "goal", "kind", "difficulty", "outcome", "steps")
    seen = ("camera", "light", "sensor")
    plan = ("step", "latency_s", *SCORES)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*scene, *seen, *plan])
    for row in rows:
        about = [row[name] for name in scene] + [json.dumps(row[name]) for name in seen]
        for values in zip(*(row[name] for name in plan), strict=True):
            writer.writerow([*about, *values])
    return text.getvalue()


def sweep_answer(sweep: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The figure of a sweep (`studio.sweep`) and what it is of. Raises ValueError."""
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}: choose one of {', '.join(SCORES)}")
    points, label = sweep["points"], SCORES[score].label
    scene = sweep["scene"]
    found = {
        "about": f"{scene['suite']} {scene['task']}, initial state {scene['init']}",
        "instruction": catalog.task(scene["suite"], scene["task"]).instruction,
        "done": len(points),
        "total": sweep["total"],
    }
    if sweep["over"] == "words":
        return found | {"figure": figures.words_figure(points, score, label)}
    orbits = sorted({p["camera"]["orbit_horizontal"] for p in points})
    distances = sorted({p["camera"]["distance"] for p in points})
    grid = np.full((len(distances), len(orbits)), np.nan)
    for p in points:
        place = (
            distances.index(p["camera"]["distance"]),
            orbits.index(p["camera"]["orbit_horizontal"]),
        )
        grid[place] = np.nan if p[score] is None else p[score]
    titles = ("horizontal orbit (°)", "distance (%)")
    return found | {"figure": figures.sweep_figure(orbits, distances, grid, titles, label)}
