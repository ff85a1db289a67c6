"""A score against success from task to task."""

import pytest

from studio.correlation import correlations, table
from studio.scores import SCORES
from studio.trials import nominal
from tests.unit.test_results import row_of


def rows_of(energies, successes):
    """Ten rollouts of each task, so many of them solved, all of whose plans have its energy."""
    return [
        row_of(trial, "success" if trial.scene.init < 40 + won else "timeout",
               **dict.fromkeys(SCORES, (energy, energy)))
        for task, (energy, won) in enumerate(zip(energies, successes, strict=True))
        for trial in nominal("libero_object", [task], range(40, 50))
    ]  # fmt: skip


def test_a_score_that_falls_with_success_correlates_positively():
    found = correlations(rows_of([1.0, 2.0, 3.0, 10.0], [10, 9, 5, 4]), "final_energy")
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(0.8043, abs=1e-4)  # by hand
    assert "| 1.00 | 0.80 |" in table(rows_of([1.0, 2.0, 3.0, 10.0], [10, 9, 5, 4]))


@pytest.mark.parametrize(
    ("energies", "successes"), [([1.0, 2.0], [10, 0]), ([1.0, 2.0, 3.0], [5, 5, 5])]
)
def test_two_tasks_or_equal_ones_say_nothing(energies, successes):
    rows = rows_of(energies, successes)
    assert correlations(rows, "final_energy") is None and table(rows) == ""
