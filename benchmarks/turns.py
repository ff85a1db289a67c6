"""Ways of doing one thing, timed side by side: they take turns, the best turn of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Way = TypeVar("Way")


def best_turns(ways: Mapping[Way, Callable[[], object]], turns: int) -> dict[Way, float]:
    """Least seconds of each way in so many rounds, after one round to warm up."""
    times: dict[Way, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: min(found[1:]) for name, found in times.items()}
