"""How well a plan's scores tell perturbed episodes from nominal ones (EB-VLA §III-C).

AUROC: the chance that a perturbed plan or rollout scores above a nominal one; 0.5 is guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def auroc(nominal: Sequence[float], perturbed: Sequence[float]) -> float:
    """Area under the ROC curve of the rule "perturbed above a threshold"; ties count half.

    Raises ValueError when a side is empty.
    """
    if not len(nominal) or not len(perturbed):
        raise ValueError("AUROC needs nominal and perturbed episodes")
    from scipy.stats import mannwhitneyu

    wins = mannwhitneyu(perturbed, nominal).statistic
    return float(wins) / (len(nominal) * len(perturbed))


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
