"""Slopes against SciPy, and that the clock is no predictor of failure."""

import json

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn import metrics

from studio import failure
from studio.confusion import plain

MAX_PLANS = 30
OF_FINAL_ENERGY = ("Slope Final", "Level Final")


def rows(energies, episodes=400, seed=0):
    """Episodes of which a third fails, after 30 plans; the others succeed after 6 to 20.

    energies(rng, failed, plans) -> [plans].
    """
    rng = np.random.default_rng(seed)
    out = []
    for i in range(episodes):
        failed = bool(rng.random() < 1 / 3)
        plans = MAX_PLANS if failed else int(rng.integers(6, 21))
        out.append({
            "suite": "s", "task": i % 10, "init": i // 10,
            "outcome": "timeout" if failed else "success", "steps": 8 * plans,
            "step": [8 * j for j in range(plans)],
            "final_energy": list(energies(rng, failed, plans)),
        })  # fmt: skip
    return out


def noise(rng, failed, plans):
    return rng.normal(size=plans)


def rising_when_failing(rng, failed, plans):
    return rng.normal(size=plans) + 0.5 * failed * np.arange(plans)


@pytest.mark.parametrize("window", [2, 5, 9])
def test_slopes_are_scipys(window):
    plans = np.random.default_rng(1).normal(size=(3, 12))
    plans[2, 7:] = np.nan
    slopes = failure.slopes(plans, window)
    assert np.isnan(slopes[:, 0]).all() and np.isnan(slopes[2, 7:]).all()
    for episode, plan in [(0, 1), (0, window - 1), (1, 8), (1, 11), (2, 6)]:
        part = plans[episode, max(0, plan + 1 - window) : plan + 1]
        expected = linregress(np.arange(len(part)), part).slope if len(part) > 1 else np.nan
        assert slopes[episode, plan] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("window", [2, 5, 9])
def test_levels_are_means(window):
    plans = np.random.default_rng(1).normal(size=(3, 12))
    plans[2, 7:] = np.nan
    levels = failure.levels(plans, window)
    assert np.isnan(levels[2, 7:]).all()
    for episode, plan in [(0, 0), (0, 1), (0, window - 1), (1, 8), (1, 11), (2, 6)]:
        expected = plans[episode, max(0, plan + 1 - window) : plan + 1].mean()
        assert levels[episode, plan] == pytest.approx(expected)


@pytest.mark.parametrize("name", failure.PREDICTORS)
def test_the_chosen_rule_is_the_best_of_the_grid(name):
    predictor = failure.PREDICTORS[name]
    episodes = rows(rising_when_failing, episodes=60)
    for row in episodes:
        row[predictor.score] = row["final_energy"]
    failed = np.array([row["outcome"] == "timeout" for row in episodes])
    step = failure.predict(episodes, predictor).steps[3]
    plans = np.array([row["final_energy"][:4] for row in episodes])  # none ends before
    best = 0.0
    for window in (2, 3, 4):
        trend = predictor.trend(plans, window)[:, 3]
        z = (trend - trend.mean()) / trend.std(ddof=1)
        for k in predictor.ks:
            best = max(best, metrics.balanced_accuracy_score(failed, z > k))
    assert step.in_sample.confusion.balanced_accuracy == pytest.approx(best)


def test_a_rising_energy_is_an_early_warning():
    prediction = failure.predict(rows(rising_when_failing))
    best = prediction.best
    assert best.held_out.balanced_accuracy > 0.9
    assert prediction.steps[0].held_out.true_positive_rate == 0.0  # one plan has no slope
    assert prediction.steps[1].held_out.balanced_accuracy < best.held_out.balanced_accuracy
    for step in prediction.steps[5:]:
        assert step.warning == 8 * (MAX_PLANS - step.step + 1)
        assert step.warning_s == step.warning / 20


@pytest.mark.parametrize(
    "clock",
    [np.arange, lambda n: np.arange(n) ** 2, lambda n: np.sqrt(np.arange(n)),
     lambda n: np.exp(np.arange(n) / 4), lambda n: -np.cumsum(np.arange(n) % 7)],
)  # fmt: skip
def test_elapsed_time_predicts_nothing(clock):
    """Whatever the energy is, if it depends on the time alone its trend tells nothing."""
    episodes = rows(lambda rng, failed, plans: clock(plans), episodes=100)
    found = [failure.predict(episodes, failure.PREDICTORS[name]) for name in OF_FINAL_ENERGY]
    for step in [step for prediction in found for step in prediction.steps]:
        assert step.held_out.balanced_accuracy == step.running.balanced_accuracy == 0.5
        assert step.in_sample.confusion.balanced_accuracy == 0.5


def test_slopes_of_one_threshold_would_be_fooled_by_the_clock():
    """Why the standing is taken at equal steps: the same energies, compared over all times."""
    episodes = rows(lambda rng, failed, plans: np.arange(plans) ** 2, episodes=100)
    failed = np.array([row["outcome"] == "timeout" for row in episodes])
    last = np.array([failure.slopes(np.array([row["final_energy"]]), 5)[0, -1] for row in episodes])
    assert metrics.balanced_accuracy_score(failed, last > last.mean()) > 0.8
    assert metrics.roc_auc_score(failed, last) == 1.0


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_noise_predicts_nothing_on_the_other_half(drift):
    """Neither do windows that short episodes can't fill, nor a drift that all share."""
    prediction = failure.predict(
        rows(lambda rng, failed, plans: noise(rng, failed, plans) + drift * np.arange(plans) ** 2,
             episodes=4000)
    )  # fmt: skip
    told = [step.held_out.balanced_accuracy for step in prediction.steps]
    assert np.mean(told) == pytest.approx(0.5, abs=0.02)
    assert np.max(np.abs(np.array(told) - 0.5)) < 0.06
    in_sample = [step.in_sample.confusion.balanced_accuracy for step in prediction.steps[1:]]
    assert np.mean(in_sample) > np.mean(told)


def test_the_rule_is_chosen_without_the_half_it_is_reported_on():
    episodes = rows(rising_when_failing)
    before = failure.predict(episodes)
    [half] = failure.choosing_half(episodes)
    for row, chosen in zip(episodes, half, strict=True):
        if not chosen:
            row["final_energy"] = row["final_energy"][::-1]
    after = failure.predict(episodes)
    assert [step.chosen for step in after.steps] == [step.chosen for step in before.steps]
    assert after.best.held_out.balanced_accuracy < 0.6


def test_only_those_still_running_are_compared_at_one_step():
    episodes = rows(noise)
    prediction = failure.predict(episodes)
    [half] = failure.choosing_half(episodes)
    for step in prediction.steps:
        alive = [
            row["outcome"]
            for row, chosen in zip(episodes, half, strict=True)
            if not chosen and len(row["step"]) >= step.step
        ]
        c = step.running
        assert c.true_positives + c.false_negatives == alive.count("timeout")
        assert c.true_negatives + c.false_positives == alive.count("success")


def test_table_and_json():
    prediction = failure.predict(rows(rising_when_failing, episodes=100))
    lines = failure.table(prediction).splitlines()
    assert len(lines) == 22 and lines[2].startswith("| 1 | 2 | 0.10 |")
    best = prediction.best.step
    told = failure.summary({"Slope Final": prediction}).splitlines()
    assert len(told) == 3 and told[2] == lines[best + 1].replace("| ", "| Slope Final | ", 1)
    told = json.loads(json.dumps(plain(prediction)))
    assert told["steps"][19]["in_sample"]["confusion"]["specificity"] <= 1


def test_without_failures_or_successes_nothing_can_be_said():
    episodes = [row for row in rows(noise) if row["outcome"] == "success"]
    with pytest.raises(ValueError, match="successes and failures"):
        failure.predict(episodes)
    with pytest.raises(ValueError, match="successes and failures"):
        failure.predict([])
