"""Recorded episodes as arrays: what a score says of each plan, per rollout, per task, in halves.

Episodes are rows of the evaluation's results; those that crashed or were stopped are no data.
Shape letters: E episodes, P plans of the longest one; NaN stands where there is no plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studio.events import Outcome

FINISHED = (Outcome.SUCCESS, Outcome.TIMEOUT)
FIRST_PLANS = 5  # of an episode, before it goes its own way
PLAN, MEAN = "plan", "mean"


def finished(rows: Iterable[Mapping]) -> list[Mapping]:
    """The episodes that came to their own end."""
    return [row for row in rows if row["outcome"] in FINISHED]


def task_of(row: Mapping) -> tuple[str, int]:
    """Suite and task of an episode."""
    return row["suite"], row["task"]


def asked(row: Mapping) -> tuple[str, int]:
    """Suite and number of the task that an episode was asked for: its scene's, or another's."""
    return row["suite"], row["task"] if row.get("goal") is None else row["goal"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Finished episodes and values of one score: of their plans, or of the episodes in a unit."""

    rows: list[Mapping]
    values: np.ndarray  # float64 [E, P] of plans or [E, V] in a unit, NaN where there is none

    @classmethod
    def of(cls, rows: Iterable[Mapping], score: str) -> Scored:
        """The episodes that have the score on at least one plan."""
        kept, values = [], []
        for row in finished(rows):
            recorded = row.get(score)
            plans = np.array(() if recorded is None else recorded, np.float64)  # None becomes NaN
            if np.isfinite(plans).any():
                kept.append(row)
                values.append(plans)
        padded = np.full((len(kept), max(map(len, values), default=0)), np.nan)
        for row, plans in zip(padded, values, strict=True):
            row[: len(plans)] = plans
        return cls(kept, padded)

    def among(self, mask: np.ndarray) -> Scored:
        """The episodes of a mask [E]."""
        return Scored(
            [row for row, keep in zip(self.rows, mask, strict=True) if keep], self.values[mask]
        )


def _first(plans: np.ndarray) -> np.ndarray:
    return np.take_along_axis(plans, np.isfinite(plans).argmax(1)[:, None], axis=1)


def _last(plans: np.ndarray) -> np.ndarray:
    return _first(plans[:, ::-1])


def _mean_of_first(plans: np.ndarray) -> np.ndarray:
    early = np.cumsum(np.isfinite(plans), axis=1) <= FIRST_PLANS
    return np.nanmean(np.where(early, plans, np.nan), axis=1, keepdims=True)


UNITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # plans [E, P] -> values [E, V]
    MEAN: lambda plans: np.nanmean(plans, axis=1, keepdims=True),
    "max": lambda plans: np.nanmax(plans, axis=1, keepdims=True),
    "first": _first,
    "last": _last,
    f"mean of the first {FIRST_PLANS}": _mean_of_first,
    PLAN: lambda plans: plans,
}


def per_task(nominal: Scored, perturbed: Scored) -> tuple[Scored, Scored]:
    """Both sides in the units of the task: (score - mean) / sd over its nominal plans.

    A nominal episode is measured by the *other* nominal episodes of its task, as a new one would
    be; left out is what has nothing to be measured by.
    """
    plans = nominal.values
    centre = np.nanmean(plans) if plans.size else 0.0
    own = np.stack(
        [
            np.isfinite(plans).sum(1),
            np.nansum(plans - centre, 1),
            np.nansum((plans - centre) ** 2, 1),
        ]
    )  # [3, E]: number, sum and sum of squares of an episode's plans
    totals: dict[tuple[str, int], np.ndarray] = {}
    for row, moments in zip(nominal.rows, own.T, strict=True):
        totals[task_of(row)] = totals.get(task_of(row), 0) + moments
    nothing = np.zeros(3)
    others = np.array([totals[task_of(row)] for row in nominal.rows]).reshape(-1, 3) - own.T
    told = _in_units(nominal, others, centre)
    known = {task_of(row): totals[task_of(row)] for row in told.rows}  # with some to compare with
    all_of = np.array([known.get(task_of(row), nothing) for row in perturbed.rows]).reshape(-1, 3)
    return told, _in_units(perturbed, all_of, centre)


def _in_units(side: Scored, moments: np.ndarray, centre: float) -> Scored:
    """`moments` [E, 3] of what measures each episode."""
    number, total, squares = moments.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / number
        sd = np.sqrt((squares - total * mean) / (number - 1))
    known = (number > 1) & (sd > 1e-9)
    scaled = (side.values - centre - mean[:, None])[known] / sd[known, None]
    return Scored(side.among(known).rows, scaled)


def state_of(row: Mapping) -> tuple[tuple[str, int], int]:
    """Task and initial state, which an episode and its perturbed twins have in common."""
    return task_of(row), row["init"]


def choosing_half(*sides: Sequence[Mapping]) -> list[np.ndarray]:
    """A mask [E] per side: True where a setting may be chosen, False where it is reported.

    Whole initial states go to one half, so an episode and its perturbed twin stay together; each
    task's states alternate, and which half begins alternates with the tasks.
    """
    states: dict[tuple[str, int], set[int]] = {}
    for row in (row for side in sides for row in side):
        states.setdefault(task_of(row), set()).add(row["init"])
    chosen = {
        (task, init)
        for first, task in enumerate(sorted(states))
        for place, init in enumerate(sorted(states[task]))
        if (first + place) % 2 == 0
    }
    return [np.array([state_of(row) in chosen for row in side], dtype=bool) for side in sides]
