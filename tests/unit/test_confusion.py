"""Confusion, ROC curve and AUROC against scikit-learn."""

import itertools

import numpy as np
import pytest
from sklearn import metrics

from studio.confusion import Confusion, Curve, Pairs, operating_point, plain
from studio.intervals import wilson


@pytest.fixture(params=["continuous", "ties"])
def sides(request):
    """Scores of 40 negatives and 90 positives, with and without ties."""
    rng = np.random.default_rng(3)
    negative, positive = rng.normal(0, 2, 40), rng.normal(1, 2, 90)
    return (negative, positive) if request.param == "continuous" else (
        negative.round(), positive.round())  # fmt: skip


def auroc(negative, positive):
    """Of plain values."""
    return Pairs.of([negative], [positive]).auroc


def truths(negative, positive):
    return np.repeat([False, True], [len(negative), len(positive)])


@pytest.mark.parametrize("threshold", [-9.0, 0.0, 1.0, 9.0])
def test_rates_are_scikit_learns(sides, threshold):
    truth, flagged = truths(*sides), np.concatenate(sides) > threshold
    c = operating_point(*sides, threshold)
    assert c == Confusion.of(flagged, truth)
    counts = [c.true_negatives, c.false_positives, c.false_negatives, c.true_positives]
    assert counts == metrics.confusion_matrix(truth, flagged).ravel().tolist()
    ours = (c.accuracy, c.balanced_accuracy, c.f1, c.true_positive_rate, c.specificity)
    theirs = (
        metrics.accuracy_score(truth, flagged),
        metrics.balanced_accuracy_score(truth, flagged),
        metrics.f1_score(truth, flagged, zero_division=0),
        metrics.recall_score(truth, flagged),
        metrics.recall_score(~truth, ~flagged),
    )
    assert ours == pytest.approx(theirs)
    assert plain(c)["false_positive_rate"] == pytest.approx(1 - c.specificity)


def test_of_nothing_every_rate_is_zero():
    c = Confusion(0, 0, 0, 0)
    assert (c.accuracy, c.true_positive_rate, c.specificity, c.f1) == (0, 0, 0, 0)


def test_the_curve_is_scikit_learns(sides):
    curve = Curve.of(*sides)
    fpr, tpr, _ = metrics.roc_curve(truths(*sides), np.concatenate(sides))
    assert curve.fpr == pytest.approx(fpr) and curve.tpr == pytest.approx(tpr)


def test_the_curve_is_the_rule_above_every_threshold(sides):
    curve, negative, positive = Curve.of(*sides), *sides
    points = {
        (float(np.mean(negative > t)), float(np.mean(positive > t)))
        for t in (-np.inf, *negative, *positive)
    }
    drawn = list(zip(curve.fpr, curve.tpr, strict=True))
    assert drawn == sorted(drawn) and set(drawn) <= points
    assert drawn[0] == (0, 0) and drawn[-1] == (1, 1)
    for (left, low), (right, high) in itertools.pairwise(drawn):  # what is left out lies between
        inside = [(x, y) for x, y in points if left <= x <= right and low <= y <= high]
        for x, y in inside:
            assert (x - left) * (high - low) == pytest.approx((y - low) * (right - left))
        points -= set(inside)
    assert not points


def test_auroc_is_scikit_learns(sides):
    expected = metrics.roc_auc_score(truths(*sides), np.concatenate(sides))
    assert auroc(*sides) == pytest.approx(expected)
    one_each = Pairs.of(*(side[:, None] for side in sides))
    assert one_each.auroc == pytest.approx(expected)


def test_auroc_of_what_is_apart_and_of_nothing():
    assert auroc([1, 2], [3, 4]) == 1.0 and auroc([3], [1]) == 0.0 and auroc([1], [1]) == 0.5
    with pytest.raises(ValueError, match="nominal and perturbed"):
        Pairs.of([], [[1.0]])


def episodes(rng, mean, count):
    """Episodes of one to six values around their own level."""
    return [rng.normal(mean + rng.normal(), 1, rng.integers(1, 7)) for _ in range(count)]


def test_pairs_of_some_episodes_are_those_of_their_values():
    rng = np.random.default_rng(4)
    negative, positive = episodes(rng, 0, 12), episodes(rng, 1, 15)
    pairs = Pairs.of(negative, positive).among(np.arange(12) % 2 == 0, np.arange(15) > 4)
    expected = auroc(np.concatenate(negative[::2]), np.concatenate(positive[5:]))
    assert pairs.auroc == pytest.approx(expected)


def test_the_interval_is_that_of_redrawn_episodes():
    """Against the plain bootstrap, which sorts the values of every draw anew."""
    rng = np.random.default_rng(5)
    negative, positive = episodes(rng, 0, 25), episodes(rng, 1, 30)
    areas = [
        auroc(
            *(
                np.concatenate([side[i] for i in rng.integers(len(side), size=len(side))])
                for side in (negative, positive)
            )
        )
        for _ in range(1000)
    ]
    pairs = Pairs.of(negative, positive)
    low, high = pairs.interval()
    assert low < pairs.auroc < high
    assert (low, high) == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.025)


def test_more_views_of_the_same_scenes_do_not_narrow_the_interval():
    rng = np.random.default_rng(6)
    levels, scenes = rng.normal(size=10), np.arange(10)
    negative = [[level + rng.normal() / 9] for level in levels]
    widths = {}
    for views in (2, 20):
        positive = [[level + 1 + rng.normal() / 9] for level in np.repeat(levels, views)]
        owners = [*scenes, *np.repeat(scenes, views)]
        for told in (owners, None):
            low, high = Pairs.of(negative, positive, told).interval()
            widths[views, told is None] = high - low
    assert widths[20, False] > 0.8 * widths[2, False]
    assert widths[20, True] < 0.8 * widths[2, True]


def test_a_draw_may_miss_a_side():
    apart = [[0.0], [3.0], [1.0]], [[2.0]], ["a", "b", "a", "b"]
    low, high = Pairs.of(*apart).interval()
    assert (low, high) == pytest.approx((0, 2 / 3))


def test_perfect_order_of_a_few_is_no_certainty():
    for count in (2, 5, 50):
        nominal, perturbed = [[0.0]] * count, [[1.0]] * 60
        low, high = Pairs.of(nominal, perturbed).interval()
        assert (low, high) == pytest.approx(wilson(count, count))
        assert Pairs.of(perturbed, nominal).interval() == pytest.approx((1 - high, 1 - low))
