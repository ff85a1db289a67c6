"""Success rates per task and suite, with Wilson 95% intervals (the protocol of Table II)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.events import Outcome
from studio.intervals import wilson
from studio.markdown import markdown
from studio.measures import asked, finished
from studio.sim import catalog


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


def rates(rows: Iterable[Mapping[str, Any]]) -> list[Rate]:
    """Per suite: each of its tasks, then the suite. Errors and stopped episodes are no trials."""
    wins: dict[str, dict[int, list[bool]]] = {}
    for row in finished(rows):
        suite, task = asked(row)
        wins.setdefault(suite, {}).setdefault(task, []).append(row["outcome"] == Outcome.SUCCESS)
    found = []
    for suite, tasks in wins.items():
        names = catalog.tasks(suite)
        for task in sorted(tasks):
            found.append(_rate(suite, task, names[task].instruction, tasks[task]))
        found.append(_rate(suite, None, suite, [win for task in tasks.values() for win in task]))
    return found


def whole_suites(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Percent and counts by suite, of those of which every task was tried."""
    known = rates(rows)
    tried = Counter(rate.suite for rate in known if rate.task is not None)
    return {
        r.suite: f"{100 * r.successes / r.episodes:.1f} ({r.successes}/{r.episodes})"
        for r in known
        if r.task is None and tried[r.suite] == len(catalog.tasks(r.suite))
    }


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
