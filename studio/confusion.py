"""What a threshold gets right and wrong, at one threshold and at all of them.

Confusion        counts of right and wrong verdicts, and the rates of EB-VLA's Tables III and IV
operating_point  the confusion of the rule "positive above the threshold"
plain            a result for JSON
Curve            the ROC curve: the operating points of every threshold
Pairs            which positive episodes score above which negative ones: AUROC and its interval
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from studio.intervals import wilson

BOOTSTRAPS = 500


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at one threshold. Rates lie in [0, 1], 0 of nothing is 0.

    Positive is what the detector looks for: a perturbed rollout (Table III), a failure (Table IV).
    """

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @classmethod
    def of(cls, flagged: np.ndarray, positive: np.ndarray) -> Confusion:
        """From verdicts [E] and truths [E], both bool."""
        tp, fp = int(np.sum(flagged & positive)), int(np.sum(flagged & ~positive))
        return cls(tp, fp, int(np.sum(~positive)) - fp, int(np.sum(positive)) - tp)

    @property
    def accuracy(self) -> float:
        """Share of all rollouts that are told right."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    @property
    def true_positive_rate(self) -> float:
        """Share of the positive rollouts that are caught."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def both(self) -> bool:
        """Whether there are rollouts of either side."""
        positives = self.true_positives + self.false_negatives
        return bool(positives and self.false_positives + self.true_negatives)

    @property
    def false_positive_rate(self) -> float:
        """Share of the negative rollouts with a false alarm."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def specificity(self) -> float:
        """Share of the negative rollouts without an alarm."""
        return _share(self.true_negatives, self.false_positives + self.true_negatives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares told right on either side."""
        return (self.true_positive_rate + 1 - self.false_positive_rate) / 2

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and true positive rate."""
        twice = 2 * self.true_positives
        return _share(twice, twice + self.false_positives + self.false_negatives)


RATES = (
    "accuracy", "balanced_accuracy", "true_positive_rate", "false_positive_rate", "specificity",
    "f1",
)  # fmt: skip
KEYS = {"k": "multiplier", "k_per_task": "multiplier_per_task"}  # what JSON calls them


def plain(value: Any) -> Any:
    """What JSON can hold of a result: dataclasses as their fields, a confusion with its rates."""
    if is_dataclass(value):
        rates = RATES if isinstance(value, Confusion) else ()
        names = (*rates, *(field.name for field in fields(value)))
        return {KEYS.get(name, name): plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def operating_point(
    negative: Sequence[float], positive: Sequence[float], threshold: float
) -> Confusion:
    """The confusion of the rule "positive above the threshold"."""
    fp = int(np.sum(np.asarray(negative) > threshold))
    tp = int(np.sum(np.asarray(positive) > threshold))
    return Confusion(tp, fp, len(negative) - fp, len(positive) - tp)


@dataclass(frozen=True, slots=True)
class Curve:
    """ROC curve from (0, 0) to (1, 1): the rates of the rule "positive above t", falling t.

    Points on a straight line between others are left out.
    """

    fpr: list[float]
    tpr: list[float]

    @classmethod
    def of(cls, negative: Sequence[float], positive: Sequence[float]) -> Curve:
        """The curve of two sets of scores, neither empty."""
        scores = np.concatenate([negative, positive]).astype(np.float64)
        steps, where = np.unique(scores, return_inverse=True)
        n, p = len(negative), len(positive)
        fp = _from_above(where[:n], len(steps))
        tp = _from_above(where[n:], len(steps))
        corners = np.ones(len(fp), dtype=bool)
        corners[1:-1] = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
        return cls((fp[corners] / n).tolist(), (tp[corners] / p).tolist())


def _from_above(where: np.ndarray, steps: int) -> np.ndarray:
    """How many lie above each of `steps` values, the highest first, and above none."""
    counts = np.bincount(where, minlength=steps)[::-1]
    return np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every negative episode against every positive one, each with one value or several.

    wins[i, j]: pairs of their values in which the positive one is higher, ties count half.
    Episodes of one scene depend on each other, so a bootstrap draws scenes; what is drawn twice
    only weighs double, so nothing is sorted again.
    """

    wins: np.ndarray  # float64 [N, P]
    negatives: np.ndarray  # int [N], values of each episode
    positives: np.ndarray  # int [P]
    negative_scenes: np.ndarray  # int [N], numbers of the scenes that both sides share
    positive_scenes: np.ndarray  # int [P]

    @classmethod
    def of(
        cls,
        negative: Sequence[Sequence[float]],
        positive: Sequence[Sequence[float]],
        scenes: Sequence[Hashable] | None = None,
    ) -> Pairs:
        """From episodes of at least one value each. Raises ValueError when a side is empty.

        `scenes`: of the negative episodes, then of the positive ones; each its own without.
        """
        if not len(negative) or not len(positive):
            raise ValueError("AUROC needs nominal and perturbed episodes")
        sizes = np.array([len(values) for values in positive])
        values = np.concatenate(positive)
        order = np.argsort(values)
        ordered, owner = values[order], np.repeat(np.arange(len(sizes)), sizes)[order]
        wins = np.empty((len(negative), len(sizes)))
        for i, episode in enumerate(negative):
            below = sum(_counts(np.searchsorted(ordered, episode, side), len(ordered))
                        for side in ("left", "right"))  # fmt: skip
            wins[i] = np.bincount(owner, below / 2, len(sizes))
        known: dict[Hashable, int] = {}
        if scenes is None:
            scenes = range(len(negative) + len(positive))
        numbers = np.array([known.setdefault(scene, len(known)) for scene in scenes])
        apart = np.split(numbers, [len(negative)])
        return cls(wins, np.array([len(episode) for episode in negative]), sizes, *apart)

    def among(self, negative: np.ndarray, positive: np.ndarray) -> Pairs:
        """The pairs of some episodes: masks [N] and [P]."""
        return Pairs(
            self.wins[negative][:, positive],
            self.negatives[negative],
            self.positives[positive],
            self.negative_scenes[negative],
            self.positive_scenes[positive],
        )

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: the share of pairs in order (Mann-Whitney's U)."""
        return float(self.wins.sum() / (self.negatives.sum() * self.positives.sum()))

    def interval(self) -> tuple[float, float]:
        """95% bootstrap interval of the AUROC; scenes are drawn, each with all its episodes.

        Of sides that are wholly apart every draw says the same: then the interval is Wilson's, of
        as many trials as the smaller side has scenes.
        """
        if self.auroc in (0.0, 1.0):
            fewest = min(len(set(s)) for s in (self.negative_scenes, self.positive_scenes))
            return wilson(round(self.auroc) * fewest, fewest)
        scenes, where = np.unique(
            np.concatenate([self.negative_scenes, self.positive_scenes]), return_inverse=True
        )
        drawn = _redrawn(len(scenes), np.random.default_rng(0))[:, where]
        n, p = np.split(drawn, [len(self.negatives)], axis=1)
        pairs = (n @ self.negatives) * (p @ self.positives)
        some = pairs > 0  # of few scenes a draw may miss a side
        areas = np.sum(n @ self.wins * p, axis=1)[some] / pairs[some]
        low, high = np.quantile(areas, [0.025, 0.975])
        return float(low), float(high)


def _counts(places: np.ndarray, length: int) -> np.ndarray:
    """For each of `length` places, how many of `places` are not behind it."""
    return np.cumsum(np.bincount(places, minlength=length)[:length])


def _redrawn(count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` scenes is drawn, [BOOTSTRAPS, count]."""
    drawn = rng.integers(count, size=(BOOTSTRAPS, count)) + count * np.arange(BOOTSTRAPS)[:, None]
    tally = np.bincount(drawn.ravel(), minlength=BOOTSTRAPS * count)
    return tally.reshape(BOOTSTRAPS, count).astype(np.float64)
