"""How a score goes with success from task to task, as uncertainty is judged by Römer et al. (2026).

A task counts once: its mean score over the rollouts' means, and its success rate. The sign is
turned, so that a score that rises where the policy fails correlates positively.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from studio.events import Outcome
from studio.markdown import markdown
from studio.measures import MEAN, UNITS, Scored, asked
from studio.scores import SCORES

METHODS = ("spearman", "pearson")
LEAST = 3  # tasks; two always lie on a line


def correlations(rows: Iterable[Mapping], score: str) -> dict[str, float] | None:
    """-correlation with the success rate by method; None of too few tasks or of equal ones."""
    scored = Scored.of(rows, score)
    tasks = pd.DataFrame(
        {
            "task": [str(asked(row)) for row in scored.rows],
            "score": UNITS[MEAN](scored.values)[:, 0],
            "success": [float(row["outcome"] == Outcome.SUCCESS) for row in scored.rows],
        }
    )
    means = tasks.groupby("task").mean()
    if len(means) < LEAST or np.isclose(means.std(), 0).any():
        return None
    return {m: -float(means["score"].corr(means["success"], method=m)) for m in METHODS}


def table(rows: Iterable[Mapping]) -> str:
    """Every score that can be correlated, as Markdown; empty when none can."""
    rows = list(rows)
    known = {name: correlations(rows, name) for name in SCORES}
    lines = [
        [SCORES[name].label, *(f"{found[m]:.2f}" for m in METHODS)]
        for name, found in known.items()
        if found
    ]
    return markdown(["score", "−Spearman", "−Pearson"], lines) if lines else ""
