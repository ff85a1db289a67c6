"""How well a score tells perturbed episodes from nominal ones (EB-VLA §III-C, Table III).

`study` looks at one score in one unit: the operating points T = μ_v + kσ_v, the ROC curve, AUROC,
and the balanced accuracy of the k that one half of the episodes chooses on the other half, for all
perturbed episodes and by suite, difficulty and kind of camera move. `compare` puts every score
side by side, as scored and in the units of each task.

A unit is what gets a verdict: every plan, or the rollout by a statistic of its plans. Perturbed
rollouts fail more and last longer, and `max` grows with their length alone; `first` and the mean
of the first plans know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.confusion import Confusion, Curve, Pairs, operating_point
from studio.markdown import markdown
from studio.measures import MEAN, UNITS, Scored, choosing_half, per_task, state_of
from studio.scores import PAPER, SCORES

DEFAULT_K = 1.0  # of the threshold μ_v + kσ_v (EB-VLA Eq. 5; Table III's recommendation)
KS = (0.2, 0.5, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0)  # of Table III
MOVES = {"orbit": 76.5, "distance": 100.0, "turn": 14.1}  # LIBERO-Plus's largest: °, %, °


class TooFew(ValueError):
    """There are not enough episodes to compare."""


def camera_move(camera: Mapping[str, float]) -> str | None:
    """What a view mostly moves: "orbit", "distance" or "turn"; None of the nominal camera.

    Each is taken as a share of the largest that LIBERO-Plus has (`MOVES`), horizontal and vertical
    together; the largest share counts. LIBERO-Plus's own views each make one kind of move.
    """
    sizes = {
        "orbit": np.hypot(camera["orbit_horizontal"], camera["orbit_vertical"]),
        "distance": abs(camera["distance"] - 100.0),
        "turn": np.hypot(camera["turn_horizontal"], camera["turn_vertical"]),
    }
    move = max(MOVES, key=lambda name: sizes[name] / MOVES[name])
    return move if sizes[move] > 0 else None


@dataclass(frozen=True, slots=True)
class Operating:
    """The detector at k: T = μ_v + kσ_v (Eq. 5), and its verdicts."""

    k: float
    threshold: float
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the perturbed episodes against all nominal ones of the same suites.

    `held_out` are the verdicts on the half that had no part in choosing the study's k; None where
    that half lacks a side.
    """

    kind: str  # "all", "suite", "perturbation", "difficulty" or "move"
    label: str
    nominal: int  # episodes
    perturbed: int
    auroc: float
    low: float  # 95% interval
    high: float
    held_out: Confusion | None


@dataclass(frozen=True, slots=True)
class Study:
    """One score in one unit; see the module docstring. `groups[0]` is everything."""

    score: str
    unit: str
    scaled: bool  # in the units of each task
    mu: float
    sigma: float
    operating: list[Operating]  # one for each k, on all episodes
    curve: Curve
    chosen: Operating | None  # on the choosing half, with its own μ_v and σ_v
    groups: list[Group]

    @property
    def everything(self) -> Group:
        """All perturbed episodes against all nominal ones."""
        return self.groups[0]


@dataclass(frozen=True, slots=True)
class Sides:
    """Nominal and perturbed episodes with their values [E, V] in one unit, NaN where none."""

    nominal: Scored
    perturbed: Scored
    score: str
    unit: str
    scaled: bool  # in the units of each task

    @property
    def nominal_values(self) -> np.ndarray:
        """Every value of the nominal side, flat."""
        return _flat(self.nominal.values)

    @property
    def perturbed_values(self) -> np.ndarray:
        """Every value of the perturbed side, flat."""
        return _flat(self.perturbed.values)

    @property
    def both(self) -> tuple[Scored, Scored]:
        """The two sides."""
        return self.nominal, self.perturbed

    def among(self, nominal: np.ndarray, perturbed: np.ndarray) -> Sides:
        """The episodes of two masks."""
        return replace(
            self, nominal=self.nominal.among(nominal), perturbed=self.perturbed.among(perturbed)
        )

    def verdicts(self, threshold: float) -> Confusion:
        """The confusion of the rule "perturbed above the threshold"."""
        return operating_point(self.nominal_values, self.perturbed_values, threshold)


def _flat(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def measure(
    nominal: Iterable[Mapping],
    perturbed: Iterable[Mapping],
    score: str = PAPER,
    unit: str = MEAN,
    scaled: bool = False,
) -> Sides:
    """The values that a study compares: those of a histogram. Suites with one side are left out.

    Raises ValueError for an unknown unit, TooFew without two nominal episodes and one perturbed.
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")
    sides = _same_suites(Scored.of(nominal, score), Scored.of(perturbed, score))
    if scaled:
        sides = per_task(*sides)
    if len(sides[0].rows) < 2 or not sides[1].rows:
        wanted = f" of the same {'task' if scaled else 'suite'}"
        raise TooFew(f"telling by {score} needs two nominal episodes and a perturbed one{wanted}")
    values = (Scored(side.rows, UNITS[unit](side.values)) for side in sides)
    return Sides(*values, score, unit, scaled)


def _same_suites(nominal: Scored, perturbed: Scored) -> list[Scored]:
    sides = nominal, perturbed
    common = set.intersection(*({row["suite"] for row in side.rows} for side in sides))
    return [
        side.among(np.array([row["suite"] in common for row in side.rows], dtype=bool))
        for side in sides
    ]


def operating_points(sides: Sides) -> list[Operating]:
    """Table III: the verdicts at every k of `KS`."""
    mu, sigma = _moments(sides)
    return [Operating(k, mu + k * sigma, sides.verdicts(mu + k * sigma)) for k in KS]


def _moments(sides: Sides) -> tuple[float, float]:
    """μ_v and σ_v of Eq. 5."""
    return float(sides.nominal_values.mean()), float(sides.nominal_values.std(ddof=1))


class _Judge:
    """What one score in one unit says, and the k that half of the episodes chooses for it."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self._halves = choosing_half(sides.nominal.rows, sides.perturbed.rows)
        self._suites = np.array([row["suite"] for row in sides.nominal.rows])
        self._pairs = Pairs.of(
            *([_flat(row) for row in side.values] for side in sides.both),
            [state_of(row) for side in sides.both for row in side.rows],
        )
        self.chosen: Operating | None = None
        half = sides.among(*self._halves)
        if len(half.nominal_values) > 1 and len(half.perturbed_values):
            points = operating_points(half)
            self.chosen = max(points, key=lambda point: point.confusion.balanced_accuracy)

    def home(self, some: np.ndarray) -> np.ndarray:
        """Mask of the nominal episodes of the suites that `some` perturbed ones are from."""
        rows = self.sides.perturbed.rows
        return np.isin(self._suites, [rows[i]["suite"] for i in np.flatnonzero(some)])

    def pairs(self, some: np.ndarray) -> Pairs:
        """`some` perturbed episodes against the nominal ones of their suites."""
        return self._pairs.among(self.home(some), some)

    def group(self, kind: str, label: str, some: np.ndarray) -> Group:
        """`some` perturbed episodes, and the chosen k's verdicts on the half it did not see."""
        pairs, home = self.pairs(some), self.home(some)
        told, (first, second) = None, self._halves
        rest = self.sides.among(home & ~first, some & ~second)
        if self.chosen and len(rest.nominal_values) and len(rest.perturbed_values):
            told = rest.verdicts(self.chosen.threshold)
        counts = (int(mask.sum()) for mask in (home, some))
        return Group(kind, label, *counts, pairs.auroc, *pairs.interval(), told)


def study(sides: Sides) -> Study:
    """Table III and what stands around it, from what `measure` found."""
    judge = _Judge(sides)
    mu, sigma = _moments(sides)
    return Study(
        score=sides.score,
        unit=sides.unit,
        scaled=sides.scaled,
        mu=mu,
        sigma=sigma,
        operating=operating_points(sides),
        curve=Curve.of(sides.nominal_values, sides.perturbed_values),
        chosen=judge.chosen,
        groups=[judge.group(*part) for part in _parts(sides.perturbed.rows)],
    )


def _parts(rows: Sequence[Mapping]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Kind, label and mask of every group that the perturbed episodes fall into."""
    yield "all", "all", np.ones(len(rows), dtype=bool)
    kinds = {
        "suite": [row["suite"] for row in rows],
        "perturbation": [row.get("kind") for row in rows],
        "difficulty": [row.get("difficulty") for row in rows],
        "move": [camera_move(row["camera"]) for row in rows],
    }
    for kind, labels in kinds.items():
        for label in sorted({label for label in labels if label is not None}):
            yield kind, str(label), np.array([other == label for other in labels])


@dataclass(frozen=True, slots=True)
class Line:
    """One score among others: all episodes as scored and per task, and AUROC by difficulty.

    `k` and `k_per_task` are what the choosing half prefers; `per_task` is
    None where no task has two nominal episodes.
    """

    score: str
    pooled: Group
    k: float | None
    per_task: Group | None
    k_per_task: float | None
    difficulties: dict[str, float]


def compare(
    nominal: Iterable[Mapping], perturbed: Iterable[Mapping], unit: str = MEAN
) -> list[Line]:
    """Every score that the episodes have.

    Raises ValueError for an unknown unit, TooFew when no score can be studied.
    """
    nominal, perturbed = list(nominal), list(perturbed)
    lines = []
    for name in SCORES:
        raw = _judge(nominal, perturbed, name, unit, scaled=False)
        if raw is None:
            continue
        everything, *parts = _parts(raw.sides.perturbed.rows)
        scaled = _judge(nominal, perturbed, name, unit, scaled=True)
        lines.append(
            Line(
                score=name,
                pooled=raw.group(*everything),
                k=raw.chosen and raw.chosen.k,
                per_task=scaled and scaled.group(*next(_parts(scaled.sides.perturbed.rows))),
                k_per_task=scaled and scaled.chosen and scaled.chosen.k,
                difficulties={
                    label: raw.pairs(some).auroc
                    for kind, label, some in parts
                    if kind == "difficulty"
                },
            )
        )
    if not lines:
        raise TooFew("detection needs two nominal episodes and a perturbed one of the same suite")
    return lines


def _judge(
    nominal: list[Mapping], perturbed: list[Mapping], score: str, unit: str, scaled: bool
) -> _Judge | None:
    try:
        return _Judge(measure(nominal, perturbed, score, unit, scaled))
    except TooFew:
        return None


# -- Markdown -----------------------------------------------------------------------------------
def table(nominal: Iterable[Mapping], perturbed: Iterable[Mapping], unit: str = MEAN) -> str:
    """Every score: AUROC with 95% interval and balanced accuracy at the k chosen on other episodes.

    Raises like `compare`.
    """
    lines = compare(nominal, perturbed, unit)
    levels = sorted({level for line in lines for level in line.difficulties})
    head = ["score", "AUROC", "bal. acc.", "AUROC per task", "bal. acc. per task"]
    head += [f"AUROC, difficulty {level}" for level in levels]
    return markdown(
        head,
        [
            [
                SCORES[line.score].label,
                *_figures(line.pooled, line.k),
                *_figures(line.per_task, line.k_per_task),
                *(f"{line.difficulties[v]:.2f}" if v in line.difficulties else "–" for v in levels),
            ]
            for line in lines
        ],
    )


def _figures(group: Group | None, k: float | None) -> tuple[str, str]:
    if group is None:
        return "–", "–"
    area = f"{group.auroc:.3f} ({group.low:.3f} – {group.high:.3f})"
    if group.held_out is None:
        return area, "–"
    return area, f"{group.held_out.balanced_accuracy:.1%} (k = {k:g})"


def operating_table(told: Study) -> str:
    """The paper's Table III of a study."""
    head = ["multiplier", "threshold", "accuracy", "bal. acc.", "TPR", "FPR", "F1", "FP", "FN"]
    rows = []
    for point in told.operating:
        c = point.confusion
        rates = (
            c.accuracy, c.balanced_accuracy, c.true_positive_rate, c.false_positive_rate, c.f1
        )  # fmt: skip
        rows.append([f"{point.k:.1f}σ", f"{point.threshold:.3f}"]
                    + [f"{rate:.1%}" for rate in rates]
                    + [str(c.false_positives), str(c.false_negatives)])  # fmt: skip
    return markdown(head, rows)


def groups_table(told: Study) -> str:
    """AUROC and held-out balanced accuracy of every group of a study."""
    head = ["episodes", "nominal", "perturbed", "AUROC", "bal. acc."]
    k = told.chosen and told.chosen.k
    return markdown(
        head,
        [
            [
                g.label if g.kind == "all" else f"{g.kind} {g.label}",
                *(str(g.nominal), str(g.perturbed)),
                *_figures(g, k),
            ]
            for g in told.groups
        ],
    )
