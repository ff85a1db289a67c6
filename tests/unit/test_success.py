"""Success rates."""

import pytest

from studio.intervals import wilson
from studio.success import rates, table


@pytest.mark.parametrize(
    ("wins", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (45, 50, 0.78640, 0.95652)],
)
def test_wilson_interval(wins, trials, low, high):
    """Published values of the Wilson score interval."""
    assert wilson(wins, trials) == pytest.approx((low, high), abs=5e-5)


def test_errors_are_no_failed_episodes():
    rows = [
        {"suite": suite, "task": 0, "outcome": outcome}
        for suite in ("libero_object", "libero_goal")
        for outcome in ("success", "timeout", "error", "stopped")
    ]
    found = rates(rows)
    assert [(r.suite, r.task, r.successes, r.episodes) for r in found] == [
        ("libero_object", 0, 1, 2),
        ("libero_object", None, 1, 2),
        ("libero_goal", 0, 1, 2),
        ("libero_goal", None, 1, 2),
    ]
    lines = table(rows).splitlines()
    assert "| **libero_object** | 1/2 | 9% – 91% |" in lines
