"""The OOD lab's questions, answered from the rows of evaluation runs.

A selection is some runs of one checkpoint, and a filter on their episodes. Nominal and perturbed
episodes are told by what each row says of itself, so one run may hold both.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from studio import detection, failure, published, results, success
from studio.confusion import plain
from studio.detection import DEFAULT_K, Sides, Study, TooFew, camera_move
from studio.events import CameraPerturbation, LightPerturbation, Outcome, SensorNoise
from studio.measures import MEAN, PLAN, asked, finished
from studio.rows import Row, run_rows
from studio.scores import PAPER, SCORES
from studio.sim import catalog
from studio.trial import NOMINAL, key_of
from studio.viz import lab as figures


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
        runs = {folder: found for folder in self.folders if (found := run_rows(folder))}
        _check_chains(runs)
        rows = [row for found in runs.values() for row in found if self._keeps(row)]
        # Runs may share episodes; one counts once.
        return list({(row.get("checkpoint"), key_of(row)): row for row in rows}.values())

    def _keeps(self, row: Row) -> bool:
        if self.suite not in ("", row["suite"]) or self.task not in ("", str(row["task"])):
            return False
        if row["kind"] == NOMINAL:
            return True
        move = camera_move(row["camera"]) or ""
        return self.difficulty in ("", str(row["difficulty"])) and self.move in ("", move)


def _check_chains(folders: Iterable[Path]) -> None:
    """Raises ValueError, naming the runs, where they have different numbers of chains."""
    made: dict[int, list[str]] = {}
    for folder in folders:
        made.setdefault(results.read_settings(folder).get("chains", 1), []).append(folder.name)
    if len(made) > 1:
        told = "; ".join(f"{chains}: {', '.join(sorted(made[chains]))}" for chains in sorted(made))
        raise ValueError(
            f"these runs have different numbers of chains ({told}); compare like with like"
        )


def sides(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """(nominal, perturbed). Raises ValueError when they are of several checkpoints."""
    rows = finished(rows)
    if len({row["checkpoint"] for row in rows}) > 1:
        raise ValueError("these runs are of different checkpoints; compare one with itself")
    perturbed = [row for row in rows if row["kind"] != NOMINAL]
    return [row for row in rows if row["kind"] == NOMINAL], perturbed


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a selection: which score ("": `scored` says), in which unit, at which k."""

    selection: Selection
    score: str = ""
    unit: str = MEAN
    scaled: bool = False
    k: float = DEFAULT_K

    def __post_init__(self) -> None:
        _check_score(self.score)


def _check_score(score: str) -> None:
    if score not in ("", *SCORES):
        raise ValueError(f"unknown score {score!r}: choose one of {', '.join(SCORES)}")


def scored(question: Question) -> Question:
    """The question with a score: the one asked for, or else the first that its episodes have.

    The paper's is the first of all. Raises TooFew where no episode has the one asked for.
    """
    known = _scores(_Rows(*sides(question.selection.rows())))
    return replace(question, score=_told_by(question.score, known, "episodes"))


def _told_by(score: str, known: Sequence[str], what: str) -> str:
    if score and known and score not in known:
        raise TooFew(f"these {what} have no {SCORES[score].label}; choose another score")
    return score or next(iter(known), PAPER)


def answer(question: Question) -> dict[str, Any]:
    """Figures and numbers of a study at one k, or why there are none yet. Raises ValueError."""
    nominal, perturbed = sides(question.selection.rows())
    counts = {"nominal": len(nominal), "perturbed": len(perturbed)}
    try:
        question = scored(question)
        measured, told = study(question)
    except TooFew as few:
        return {**counts, "figures": {}, "problem": str(few)}
    threshold = told.mu + question.k * told.sigma
    confusion = measured.verdicts(threshold)
    label = axis_label(question)
    everything = told.everything
    return {
        **counts,
        "score": question.score,
        "checkpoint": nominal[0]["checkpoint"],
        "mu": told.mu,
        "sigma": told.sigma,
        "threshold": threshold,
        "confusion": plain(confusion),
        "chosen_k": told.chosen and told.chosen.k,
        "held_out": plain(everything.held_out),
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


def moved(question: Question) -> dict[str, Any]:
    """`answer` without what is the same at every k: the bars, and the episodes one by one."""
    found = answer(question)
    kept = {name: {"layout": figure["layout"]} for name, figure in found["figures"].items()}
    if "roc" in kept:
        kept["roc"] = found["figures"]["roc"]
    return found | {"figures": kept}


def study(question: Question) -> tuple[Sides, Study]:
    """The values that are compared, and the study of them; its last answers are kept.

    Raises ValueError, TooFew without enough episodes.
    """
    question = scored(question)
    rows = _Rows(*sides(question.selection.rows()))
    return _study(rows, question.score, question.unit, question.scaled)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Two lists of rows that a cache can tell from others: rows are made once and kept."""

    nominal: list[Row]
    perturbed: list[Row]

    def __hash__(self) -> int:
        return hash((tuple(map(id, self.nominal)), tuple(map(id, self.perturbed))))


@lru_cache(maxsize=16)
def _scores(rows: _Rows) -> list[str]:
    """Those that some of the episodes have."""
    both = (*rows.nominal, *rows.perturbed)
    return [name for name in SCORES if any(v is not None for row in both for v in row[name])]


@lru_cache(maxsize=16)
def _study(rows: _Rows, score: str, unit: str, scaled: bool) -> tuple[Sides, Study]:
    measured = detection.measure(rows.nominal, rows.perturbed, score, unit, scaled)
    return measured, detection.study(measured)


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
        for row, values in zip(side.rows, side.values, strict=True):
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
        "failure": {name: _prediction(told) for name, told in failure.predictions(rows).items()},
    }
    try:
        _, told = study(question)
        found["study"] = plain(told) | {"curve": None}
        found["scores"] = plain(detection.compare(nominal, perturbed, question.unit))
    except TooFew as few:
        found["problem"] = str(few)
    return found


def _prediction(told: failure.Prediction | str) -> dict[str, Any]:
    return {"problem": told} if isinstance(told, str) else plain(told) | {"best": told.best.step}


def _rates(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [asdict(rate) | {"interval": rate.interval} for rate in success.rates(rows)]


def plans_csv(rows: Iterable[Row]) -> str:
    """One line per plan: its episode, what made it, how it ended, and every score of the plan."""
    columns = ("suite", "task", "init", "seed", "goal", "layout", "kind", "difficulty")
    parts = ("robot", "camera", "light", "sensor")
    end, plan = ("outcome", "steps"), ("step", "latency_s", *SCORES)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["checkpoint", "run", "episode", *columns, "instruction", *parts, *end, *plan])
    for row in rows:
        about = [row["checkpoint"], row["run"], _id(row), *(row[name] for name in columns)]
        about += [_words(row), *(json.dumps(row[name]) for name in parts)]
        about += [row[name] for name in end]
        for values in zip(*(row[name] for name in plan), strict=True):
            writer.writerow([*about, *values])
    return text.getvalue()


def _id(row: Row) -> str:
    """A short name of an episode: this checkpoint in this scene, whichever run holds it."""
    return hashlib.sha256(f"{row['checkpoint']} {key_of(row)}".encode()).hexdigest()[:12]


def sweep_answer(sweep: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The figure of a sweep (`studio.sweep`) and what it is of; the score as in `scored`.

    Raises ValueError.
    """
    _check_score(score)
    points = sweep["points"]
    known = [name for name in SCORES if any(p[name] is not None for p in points)]
    score = _told_by(score, known, "points")
    label = SCORES[score].label
    scene = sweep["scene"]
    found = {
        "about": f"{scene['suite']} {scene['task']}, initial state {scene['init']}",
        "instruction": catalog.task(scene["suite"], scene["task"]).instruction,
        "score": score,
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
