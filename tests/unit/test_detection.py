"""AUROC against its definition, and the table over episodes."""

import numpy as np
import pytest

from studio import detection


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    nominal, perturbed = rng.integers(0, 9, 40), rng.integers(2, 12, 30)
    pairs = [(n < p) + 0.5 * (n == p) for n in nominal for p in perturbed]
    assert detection.auroc(nominal, perturbed) == pytest.approx(np.mean(pairs))
    assert detection.auroc([1, 2], [3, 4]) == 1.0 and detection.auroc([3], [1]) == 0.0
    with pytest.raises(ValueError, match="nominal and perturbed"):
        detection.auroc([], [1.0])


def test_the_interval_holds_the_estimate():
    rng = np.random.default_rng(1)
    nominal, perturbed = rng.normal(0, 1, (30, 4)), rng.normal(1, 1, (30, 4))
    low, high = detection.auroc_interval(nominal, perturbed)
    assert low < detection.auroc(nominal.ravel(), perturbed.ravel()) < high < 1


def row(task, energies):
    return {
        "suite": "s", "task": task, "outcome": "success",
        "final_energy": energies, "energy_gap": [e / 2 for e in energies],
    }  # fmt: skip


def test_standardising_by_task_finds_what_the_tasks_hide():
    """Two tasks 100 apart; perturbation adds 10 to both."""
    nominal = [row(0, [0.0, 1.0, 2.0]), row(1, [100.0, 101.0, 102.0])]
    perturbed = [row(0, [10.0, 11.0]), row(1, [110.0, 111.0])]
    raw = [[r["final_energy"] for r in side] for side in (nominal, perturbed)]
    assert detection.auroc(*map(np.concatenate, raw)) < 0.8
    scaled = [detection.standardized(s, "final_energy", nominal) for s in (nominal, perturbed)]
    assert detection.auroc(*map(np.concatenate, scaled)) == 1.0
    assert scaled[0][0] == [-1.0, 0.0, 1.0]


def test_the_table_leaves_out_what_never_planned():
    failed = {"suite": "s", "task": 0, "outcome": "error"}
    table = detection.table([row(0, [0.0, 1.0]), failed], [row(0, [5.0, 6.0])])
    assert "| final_energy | plan | 1.00 (1.00 – 1.00) | 1.00 (1.00 – 1.00) |" in table
    with pytest.raises(ValueError):
        detection.table([failed], [row(0, [5.0])])
