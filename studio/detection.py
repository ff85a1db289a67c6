"""How well a plan's scores tell perturbed episodes from nominal ones (EB-VLA §III-C).

auroc            the chance that a perturbed plan or rollout scores above a nominal one
Confusion        what a threshold gets right and wrong, and the rates of Table III
operating_point  the confusion at T = μ_v + kσ_v (Eq. 5)
table            AUROC of every score and unit, as Markdown
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SCORES = ("final_energy", "energy_gap")
FIRST_PLANS = 5  # of an episode, before it goes its own way
UNITS: dict[str, Callable[[list[float]], list[float]]] = {
    "plan": lambda scores: scores,
    "rollout, mean": lambda scores: [float(np.mean(scores))],
    "rollout, max": lambda scores: [max(scores)],
    f"rollout, mean of the first {FIRST_PLANS}": lambda scores: [
        float(np.mean(scores[:FIRST_PLANS]))
    ],
}
BOOTSTRAPS = 500
MULTIPLIERS = (0.2, 0.5, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0)  # k of Table III


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at one threshold; perturbed is positive. Rates lie in [0, 1], 0 of nothing is 0."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @classmethod
    def from_errors(cls, nominal: int, perturbed: int, fp: int, fn: int) -> Confusion:
        """From the numbers of rollouts on each side and the errors among them."""
        return cls(perturbed - fn, fp, nominal - fp, fn)

    @property
    def accuracy(self) -> float:
        """Share of all rollouts that are told right."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    @property
    def true_positive_rate(self) -> float:
        """Share of the perturbed rollouts that are caught."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        """Share of the nominal rollouts with a false alarm."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares told right on either side."""
        return (self.true_positive_rate + 1 - self.false_positive_rate) / 2

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and true positive rate."""
        twice = 2 * self.true_positives
        return _share(twice, twice + self.false_positives + self.false_negatives)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def operating_point(
    nominal: Sequence[float], perturbed: Sequence[float], threshold: float
) -> Confusion:
    """The confusion of the rule "perturbed above the threshold" (Eq. 5: μ_v + kσ_v)."""
    fp = int(np.sum(np.asarray(nominal) > threshold))
    tp = int(np.sum(np.asarray(perturbed) > threshold))
    return Confusion(tp, fp, len(nominal) - fp, len(perturbed) - tp)


def auroc(nominal: Sequence[float], perturbed: Sequence[float]) -> float:
    """Area under the ROC curve of the rule "perturbed above a threshold"; ties count half.

    Raises ValueError when a side is empty.
    """
    if not len(nominal) or not len(perturbed):
        raise ValueError("AUROC needs nominal and perturbed episodes")
    from scipy.stats import rankdata

    n, p = len(nominal), len(perturbed)
    ranks = rankdata(np.concatenate([nominal, perturbed]))[n:]
    return float(ranks.sum() - p * (p + 1) / 2) / (n * p)  # Mann-Whitney's U


def auroc_interval(
    nominal: Sequence[Sequence[float]], perturbed: Sequence[Sequence[float]], seed: int = 0
) -> tuple[float, float]:
    """95% bootstrap interval; episodes are drawn, each with all of its values."""
    rng = np.random.default_rng(seed)
    areas = [auroc(_redrawn(nominal, rng), _redrawn(perturbed, rng)) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def _redrawn(episodes: Sequence[Sequence[float]], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([episodes[i] for i in rng.integers(len(episodes), size=len(episodes))])


def standardized(rows: Sequence[Mapping], score: str, nominal: Sequence[Mapping]) -> list[list]:
    """The score of every plan, episode by episode, in the units of its task's nominal plans.

    Tasks without nominal plans are left out.
    """
    by_task: dict[tuple, list[float]] = {}
    for row in nominal:
        by_task.setdefault((row["suite"], row["task"]), []).extend(row[score])
    out = []
    for row in rows:
        plans = by_task.get((row["suite"], row["task"]), ())
        if len(plans) > 1:
            mu, sigma = np.mean(plans), np.std(plans, ddof=1)
            out.append(((np.array(row[score]) - mu) / sigma).tolist())
    return out


def table(nominal: Sequence[Mapping], perturbed: Sequence[Mapping]) -> str:
    """AUROC with 95% intervals, as Markdown: as scored, and standardised per task.

    nominal, perturbed: rows of `studio.evaluate`; those without plans are left out.
    Raises ValueError when a side is empty.
    """
    sides = [[row for row in rows if row.get("final_energy")] for rows in (nominal, perturbed)]
    lines = ["| AUROC | unit | as scored | standardised per task |", "| --- | --- | --- | --- |"]
    for score in SCORES:
        raw = [[row[score] for row in side] for side in sides]
        scaled = [standardized(side, score, sides[0]) for side in sides]
        for unit, reduce in UNITS.items():
            cells = [_cell(*([reduce(plans) for plans in side] for side in kind))
                     for kind in (raw, scaled)]  # fmt: skip
            lines.append(f"| {score} | {unit} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _cell(nominal: Sequence[Sequence[float]], perturbed: Sequence[Sequence[float]]) -> str:
    area = auroc(*(np.concatenate(side) if side else [] for side in (nominal, perturbed)))
    low, high = auroc_interval(nominal, perturbed)
    return f"{area:.2f} ({low:.2f} – {high:.2f})"
