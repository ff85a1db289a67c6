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


@pytest.mark.parametrize(
    ("fp", "fn", "figures"),
    [
        (49, 79, "86.5% 74.8% 90.4% 40.8% 92.1%"),
        (29, 109, "85.4% 81.3% 86.8% 24.2% 91.2%"),
        (21, 124, "84.7% 83.7% 85.0% 17.5% 90.6%"),
        (19, 141, "83.1% 83.5% 82.9% 15.8% 89.5%"),
        (16, 150, "82.4% 84.2% 81.8% 13.3% 89.1%"),
        (14, 160, "81.6% 84.5% 80.6% 11.7% 88.4%"),
        (8, 273, "70.3% 80.1% 66.9% 6.7% 79.7%"),
        (6, 439, "52.9% 70.9% 46.8% 5.0% 63.4%"),
        (0, 776, "17.9% 53.0% 5.9% 0.0% 11.2%"),
    ],
)
def test_the_rates_are_those_of_table_iii(fp, fn, figures):
    """EB-VLA's Table III from its own counts of errors: 120 nominal, 825 perturbed rollouts."""
    c = detection.Confusion.from_errors(120, 825, fp, fn)
    rates = (
        c.accuracy, c.balanced_accuracy, c.true_positive_rate, c.false_positive_rate, c.f1
    )  # fmt: skip
    assert " ".join(f"{rate:.1%}" for rate in rates) == figures


def test_an_operating_point_counts_what_lies_above():
    point = detection.operating_point([1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], threshold=2.0)
    assert point == detection.Confusion(3, 1, 2, 1)
