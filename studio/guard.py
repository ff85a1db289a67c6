"""The guard: when a policy should stop and ask for help (EB-VLA's threshold, Eq. 5). Pure.

A plan's score is compared with T = mu + k·sigma of the checkpoint's calibration. The guard speaks
up when the last n plans were all above T, or when their slope says that the n next ones will be.
Without a calibration there is no T, and no guard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.types import Plan
from studio.checks import check_fields
from studio.scores import PAPER, SCORES

RULES = ("level", "slope", "either")
GUARD_BOUNDS: dict[str, tuple] = {
    "score": tuple(SCORES),
    "k": (-5.0, 10.0),
    "plans": (1, 20),
    "rule": RULES,
}
LEAST = 3  # points that make a slope

Level = tuple[float, float]  # (mu, sigma) of a score over calibration episodes


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """When to ask: `plans` in a row above mu + k·sigma of `score`, by their level or slope.

    Raises ValueError outside `GUARD_BOUNDS`.
    """

    on: bool = False
    score: str = PAPER
    k: float = 1.0
    plans: int = 3
    rule: str = "either"

    def __post_init__(self) -> None:
        check_fields(self, "guard", GUARD_BOUNDS)


def alarm(scores: Sequence[float], settings: GuardSettings, level: Level) -> str | None:
    """Why to ask for help after plans of these `scores`, oldest first; None when all is well."""
    mu, sigma = level
    limit, count = mu + settings.k * sigma, settings.plans
    latest = np.asarray(scores[-count:], float)
    if settings.rule != "slope" and len(latest) == count and (latest > limit).all():
        which = f"{count} plans in a row" if count > 1 else "a plan"
        return f"{which} above {limit:.2f}, the last one at {latest[-1]:.2f}"
    if settings.rule == "level":
        return None
    recent = np.asarray(scores[-max(LEAST, count) :], float)
    if len(recent) < max(LEAST, count):
        return None
    slope, start = np.polyfit(np.arange(len(recent)), recent, 1)
    ahead = start + slope * (len(recent) - 1 + count)
    if slope * (len(recent) - 1) > sigma and ahead > limit:  # a rise smaller than sigma is noise
        return f"rising by {slope:.2f} a plan towards {limit:.2f}, now {recent[-1]:.2f}"
    return None


class Guard:
    """Watches the plans of one loop. `level` tells (mu, sigma) of a score, None without one."""

    def __init__(self, level: Callable[[str], Level | None]) -> None:
        self._level = level
        self._plans: list[Plan] = []

    def forget(self) -> None:
        """Begin to count anew: the person has answered, or another episode begins."""
        self._plans = []

    def see(self, plan: Plan, settings: GuardSettings) -> str | None:
        """Why to ask for help before this plan is carried out, or None."""
        self._plans = [*self._plans, plan][-GUARD_BOUNDS["plans"][1] :]
        level = self._level(settings.score)
        if not settings.on or level is None:
            return None
        scores = [SCORES[settings.score].of(plan) for plan in self._plans]
        return alarm([score for score in scores if score is not None], settings, level)
