"""The papers' tables agree with themselves, and our statistics give their figures."""

import pytest

from studio import published
from studio.confusion import Confusion
from studio.detection import KS

NOMINAL, PERTURBED = 120, 825  # rollouts of Table III
FAILURES = 293  # among them, see the note of Table IV


def numbers(table, column):
    """A column without its units."""
    at = table.columns.index(column)
    return [float(row[at].rstrip("%σB")) for row in table.rows]


def from_errors(negatives, positives, fp, fn):
    """The confusion of so many rollouts on each side with these errors among them."""
    return Confusion(positives - fn, fp, negatives - fp, fn)


def test_the_rates_are_those_of_table_iii():
    """EB-VLA's Table III to the digit, from its own counts of errors."""
    table = published.DETECTION
    errors = zip(numbers(table, "FP"), numbers(table, "FN"), strict=True)
    ours = []
    for fp, fn in errors:
        c = from_errors(NOMINAL, PERTURBED, int(fp), int(fn))
        rates = (
            c.accuracy, c.balanced_accuracy, c.true_positive_rate, c.false_positive_rate, c.f1
        )  # fmt: skip
        ours.append([f"{rate:.1%}" for rate in rates])
    assert len(ours) == 9 and ours == [row[2:7] for row in table.rows]


def test_its_thresholds_follow_from_mu_and_sigma():
    table = published.DETECTION
    assert numbers(table, "Multiplier") == list(KS)
    expected = [5.869 + k * 0.407 for k in KS]
    assert numbers(table, "Threshold") == pytest.approx(expected, abs=1e-3)


def test_table_iv_judges_every_rollout_at_every_step():
    """Its rates are shares of the same 293 failures and 652 successes in all rows."""
    table, successes = published.FAILURE, NOMINAL + PERTURBED - FAILURES
    assert numbers(table, "Step") == list(range(1, 21))
    for tpr, spec, *printed in zip(
        *(numbers(table, c) for c in ("TPR", "Spec.", "Acc.", "Bal. Acc.")), strict=True
    ):
        caught, spared = round(tpr * FAILURES / 100), round(spec * successes / 100)
        c = from_errors(successes, FAILURES, successes - spared, FAILURES - caught)
        recomputed = (c.true_positive_rate, c.specificity, c.accuracy, c.balanced_accuracy)
        assert [100 * r for r in recomputed] == pytest.approx([tpr, spec, *printed], abs=0.006)


def test_the_averages_of_table_ii_are_those_of_its_suites():
    """But for two rows that are printed so: the table's note names them."""
    table = published.SUCCESS
    suites = zip(*(numbers(table, c) for c in published.SUITES.values()), strict=True)
    off = [
        row[0]
        for row, average, rates in zip(table.rows, numbers(table, "Avg."), suites, strict=True)
        if abs(average - sum(rates) / 4) > 0.051
    ]
    assert off == ["CoT-VLA", "MolmoAct"] and all(name in table.note for name in off)
    assert table.rows[-1] == ["EB-VLA (Ours)", "0.5B", "95.0", "99.0", "96.0", "90.2", "95.1"]


def test_our_row_stands_under_the_published_ones():
    lines = published.success_table({"libero_object": "97.5", "libero_90": "1.0"}).splitlines()
    assert lines[-2].startswith("| EB-VLA (Ours) | 0.5B | 95.0 |")
    assert lines[-1] == "| **this checkpoint** |  |  | 97.5 |  |  |  |"


@pytest.mark.parametrize(
    "table",
    [published.SUCCESS, published.DETECTION, published.FAILURE, published.CORRELATION],
    ids=lambda table: table.title,
)
def test_every_table_is_whole_and_says_where_it_is_from(table):
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.source in table.caption and table.url.startswith("https://")
    assert len(table.table.splitlines()) == len(table.rows) + 2
