"""Success rates per task and suite, with Wilson 95% intervals (the protocol of Table II)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.events import Outcome
from studio.markdown import markdown
from studio.measures import finished
from studio.sim import catalog

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """Successes of a task, or of a whole suite (`task` None)."""

    suite: str
    task: int | None
    name: str
    successes: int
    episodes: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval."""
        return wilson(self.successes, self.episodes)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95% Wilson score interval of a success rate (Wilson 1927)."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def rates(rows: Iterable[Mapping[str, Any]]) -> list[Rate]:
    """Per suite: each of its tasks, then the suite. Errors and stopped episodes are no trials."""
    wins: dict[str, dict[int, list[bool]]] = {}
    for row in finished(rows):
        tasks = wins.setdefault(row["suite"], {})
        tasks.setdefault(row["task"], []).append(row["outcome"] == Outcome.SUCCESS)
    found = []
    for suite, tasks in wins.items():
        names = catalog.tasks(suite)
        for task in sorted(tasks):
            found.append(_rate(suite, task, names[task].instruction, tasks[task]))
        found.append(_rate(suite, None, suite, [win for task in tasks.values() for win in task]))
    return found


def suites(rows: Iterable[Mapping[str, Any]]) -> list[Rate]:
    """The suites of `rates` alone."""
    return [rate for rate in rates(rows) if rate.task is None]


def _rate(suite: str, task: int | None, name: str, wins: Sequence[bool]) -> Rate:
    return Rate(suite, task, name, sum(wins), len(wins))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """`rates` as Markdown."""
    lines = []
    for rate in rates(rows):
        name = rate.name if rate.task is not None else f"**{rate.name}**"
        low, high = rate.interval
        lines.append([name, f"{rate.successes}/{rate.episodes}", f"{low:.0%} – {high:.0%}"])
    return markdown(["task", "success", "95% interval"], lines)
