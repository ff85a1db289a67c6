"""Does the energy tell which episodes will fail (EB-VLA §III-D, Table IV)?

At plan-step s an episode is flagged when the slope of a score over its last w plans, by linear
regression, lies more than k standard deviations above the mean slope. *Slope Start* takes the
initial energies, *Slope Final* the final ones. A failure is a timeout. Beside the paper's two
stand predictors that take the level of a score, its mean over the last w plans, for its slope;
there k may be negative, as most episodes of a hard study fail.

**Equal steps.** Episodes that succeed end early, so whatever follows the clock (an energy that
grows with time, or a window that short episodes cannot fill) looks like a perfect predictor when
the trends of different times share one threshold. Here a trend is only ever compared with trends
of the same time: mean and deviation are those of all reference episodes that were running at that
plan, with the same window. An episode that ended before s is judged by its last plan against the
episodes running then, over as many plans as it had if the window is longer. So a score that
depends on the elapsed time alone is at the mean everywhere and flags nothing, and noise flags
short and long episodes alike. `running` leaves out the ended ones: those verdicts are all of one
plan-step.

For each step, window and k are chosen on one half of the episodes and reported on the
other; `in_sample` chooses and reports on all of them, as the paper does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studio.confusion import Confusion
from studio.events import Outcome
from studio.markdown import markdown
from studio.measures import Scored, choosing_half
from studio.pace import CONTROL_HZ

STEPS = 20  # plan-steps of Table IV
WINDOWS = tuple(range(2, STEPS + 1))  # plans
KS = tuple(round(0.1 * i, 1) for i in range(1, 21))
ANY_K = tuple(round(0.1 * i, 1) for i in range(-20, 21))


@dataclass(frozen=True, slots=True)
class Rule:
    """A window (plans) and a k, and their verdicts on some episodes."""

    window: int
    k: float
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class Step:
    """What is known at one plan-step; positive is a failure.

    `warning` is the median time in control steps from the verdict to the timeout, over the
    failures that `held_out` catches, `warning_s` that in seconds of the robot's time; None when it
    catches none.
    """

    step: int
    chosen: Rule  # on the choosing half
    held_out: Confusion  # the same rule on the other half
    running: Confusion  # of those, the episodes that had not ended
    in_sample: Rule  # chosen and reported on all episodes
    warning: float | None
    warning_s: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Table IV of one score. `best` is the step that the choosing half prefers."""

    score: str
    successes: int
    failures: int
    steps: list[Step]

    @property
    def best(self) -> Step:
        """Chosen without a look at the half that it is reported on."""
        return max(self.steps, key=lambda step: step.chosen.confusion.balanced_accuracy)


def slopes(plans: np.ndarray, window: int) -> np.ndarray:
    """Slope per plan of the regression over the last `window` plans, or all so far if fewer.

    plans: [E, P]; returns [E, P], NaN at the first plan and where a plan in the window is NaN.
    """
    out = np.full(plans.shape, np.nan)
    for width in range(2, min(window, plans.shape[1]) + 1):
        time = np.arange(width) - (width - 1) / 2
        views = np.lib.stride_tricks.sliding_window_view(plans, width, axis=1)
        fitted = views @ (time / (time @ time))  # at the plans width - 1, width, ...
        if width == window:
            out[:, width - 1 :] = fitted
        else:
            out[:, width - 1] = fitted[:, 0]
    return out


def levels(plans: np.ndarray, window: int) -> np.ndarray:
    """Mean per plan of the last `window` plans, or of all so far if fewer.

    plans: [E, P]; returns [E, P], NaN where a plan in the window is NaN.
    """
    ahead = np.pad(plans, ((0, 0), (window - 1, 0)))  # zeros, as if before the first plan
    views = np.lib.stride_tricks.sliding_window_view(ahead, window, axis=1)
    return views.sum(-1) / np.minimum(np.arange(1, plans.shape[1] + 1), window)


@dataclass(frozen=True, slots=True)
class Predictor:
    """A trend of one score, and the multiples of its deviation that may be a threshold.

    trend: plans [E, P], window -> [E, P].
    """

    score: str
    trend: Callable[[np.ndarray, int], np.ndarray] = slopes
    ks: tuple[float, ...] = KS


PREDICTORS = {
    "Slope Start": Predictor("initial_energy"),
    "Slope Final": Predictor("final_energy"),
    "Level Final": Predictor("final_energy", levels, ANY_K),
    "Level of the read-out distance": Predictor("readout_distance", levels, ANY_K),
}


def standing(trend: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(trend - mean) / sd at each plan, over the reference episodes that have this plan.

    trend: [E, P]; reference: mask [E]. 0, so no verdict, where there is no trend or no spread.
    """
    z = np.zeros(trend.shape)
    for plan in range(trend.shape[1]):
        known = trend[reference & np.isfinite(trend[:, plan]), plan]
        if len(known) > 1 and np.ptp(known) > 1e-9 * (1 + np.abs(known).max()):
            z[:, plan] = (trend[:, plan] - known.mean()) / known.std(ddof=1)
    return np.nan_to_num(z)


def predict(
    rows: Iterable[Mapping], predictor: Predictor = PREDICTORS["Slope Final"]
) -> Prediction:
    """Table IV from rows of the evaluation, nominal and perturbed together as in the paper.

    Raises ValueError unless both halves have a success and a failure.
    """
    score = predictor.score
    scored = Scored.of(rows, score)
    failed = np.array([row["outcome"] == Outcome.TIMEOUT for row in scored.rows], dtype=bool)
    [half] = choosing_half(scored.rows)
    if any(len(set(failed[part])) < 2 for part in (half, ~half)):
        raise ValueError(
            f"failure prediction by {score} needs successes and failures on both halves: "
            "evaluate more initial states, or harder views"
        )
    everyone = np.ones(len(failed), dtype=bool)
    honest, in_sample = (_Bench(predictor, scored, failed, part) for part in (half, everyone))
    steps = [_step(s, scored.rows, honest, in_sample) for s in range(1, STEPS + 1)]
    return Prediction(score, int(np.sum(~failed)), int(np.sum(failed)), steps)


def predictions(rows: Sequence[Mapping]) -> dict[str, Prediction | str]:
    """By name what each of `PREDICTORS` makes of the rows, or why it can make nothing of them."""
    found: dict[str, Prediction | str] = {}
    for name, predictor in PREDICTORS.items():
        try:
            found[name] = predict(rows, predictor)
        except ValueError as error:
            found[name] = str(error)
    return found


class _Bench:
    """Every rule of the grid on some episodes, whose trends are the reference too."""

    def __init__(
        self, predictor: Predictor, scored: Scored, failed: np.ndarray, reference: np.ndarray
    ) -> None:
        self.failed, self.reference = failed, reference
        self._ks = predictor.ks
        plans = scored.values[:, :STEPS]
        self.lengths = plans.shape[1] - np.isfinite(plans)[:, ::-1].argmax(1)
        self._standing = {w: standing(predictor.trend(plans, w), reference) for w in WINDOWS}

    def at(self, step: int, window: int) -> np.ndarray:
        """Standing [E] at a plan-step, of the ended ones at their last plan."""
        last = np.minimum(self.lengths, step) - 1
        return np.take_along_axis(self._standing[window], last[:, None], axis=1)[:, 0]

    def best(self, step: int) -> Rule:
        """The first rule of the highest balanced accuracy on the reference."""
        failed, ks = self.failed[self.reference], self._ks
        windows = WINDOWS[: max(1, step - 1)]
        z = np.stack([self.at(step, window)[self.reference] for window in windows])
        flagged = z[..., None] > np.array(ks)  # [windows, episodes, ks]
        balanced = flagged[:, failed].mean(1) - flagged[:, ~failed].mean(1)  # TPR - FPR
        i, j = np.unravel_index(balanced.argmax(), balanced.shape)
        return Rule(windows[i], ks[j], Confusion.of(flagged[i, :, j], failed))


def _step(step: int, rows: list[Mapping], honest: _Bench, in_sample: _Bench) -> Step:
    rule = honest.best(step)
    flagged = honest.at(step, rule.window) > rule.k
    rest = ~honest.reference
    running = rest & (honest.lengths >= step)
    left = [
        rows[i]["steps"] - rows[i]["step"][step - 1]
        for i in np.flatnonzero(running & flagged & honest.failed)
    ]
    warning = float(np.median(left)) if left else None
    return Step(
        step=step,
        chosen=rule,
        held_out=Confusion.of(flagged[rest], honest.failed[rest]),
        running=Confusion.of(flagged[running], honest.failed[running]),
        in_sample=in_sample.best(step),
        warning=warning,
        warning_s=None if warning is None else warning / CONTROL_HZ,
    )


_HEAD = ["step", "window", "std", "acc.", "bal. acc.", "TPR", "spec.",
         "bal. acc. of those running", "bal. acc. in sample", "warning"]  # fmt: skip


def _cells(step: Step) -> list[str]:
    """A line of Table IV, and what the paper leaves out."""
    c = step.held_out
    rates = (c.accuracy, c.balanced_accuracy, c.true_positive_rate, c.specificity)
    running = f"{step.running.balanced_accuracy:.1%}" if step.running.both else "–"
    warning = "–" if step.warning_s is None else f"{step.warning_s:.1f} s"
    rule = [str(step.step), str(step.chosen.window), f"{step.chosen.k:.2f}"]
    in_sample = f"{step.in_sample.confusion.balanced_accuracy:.1%}"
    return [*rule, *(f"{rate:.1%}" for rate in rates), running, in_sample, warning]


def table(prediction: Prediction) -> str:
    """The paper's Table IV of a prediction as Markdown."""
    return markdown(_HEAD, [_cells(step) for step in prediction.steps])


def summary(predictions: Mapping[str, Prediction]) -> str:
    """The best step of each prediction, by name, as Markdown."""
    lines = [[name, *_cells(prediction.best)] for name, prediction in predictions.items()]
    return markdown(["predictor", *_HEAD], lines)
