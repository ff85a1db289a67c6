"""What a plan says of itself: one number from its recorded descent, the bigger the more suspicious.

A score is a pure function of a `Plan`, None where the plan lacks what it needs. To add one, write
the function and list it in `SCORES`: evaluation records it, and every table and figure shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.types import Plan

PAPER = "final_energy"  # the score of EB-VLA §III-C


@dataclass(frozen=True, slots=True)
class Score:
    """A number per plan. Above a threshold means out of distribution, for every score.

    `label` names it on an axis; `of` returns None where the plan can't tell.
    """

    name: str
    label: str
    description: str
    of: Callable[[Plan], float | None]


def initial_energy(plan: Plan) -> float | None:
    """E(a^(0), C) of the chosen chain: the energy of noise."""
    return plan.initial_energy


def final_energy(plan: Plan) -> float | None:
    """E(a^(K), C) of the chosen chain (EB-VLA §III-C)."""
    return plan.final_energy


def grad_norm(plan: Plan) -> float | None:
    """L2 norm of the last gradient of the chosen chain, before clipping."""
    return float(plan.trace.grad_norms[-1, plan.chain]) if plan.trace else None


def max_timestep_energy(plan: Plan) -> float | None:
    """max_t e_t at the final action of the chosen chain; E is the mean of the e_t."""
    return float(plan.trace.timestep_energies[-1, plan.chain].max()) if plan.trace else None


def chain_energy_spread(plan: Plan) -> float | None:
    """Standard deviation over the chains of their final energies; None of one chain."""
    if not _several(plan):
        return None
    return float(np.std(plan.trace.energies[-1], ddof=1))


def chain_action_spread(plan: Plan) -> float | None:
    """RMS over the chunk of the standard deviation over the chains of their final actions.

    In normalised units; None of one chain.
    """
    if not _several(plan):
        return None
    return float(np.sqrt(np.var(plan.trace.actions[-1], axis=0, ddof=1).mean()))


def energy_gap(plan: Plan) -> float | None:
    """E(read-out, C) - E(a^(K), C); None of a checkpoint without read-out."""
    return plan.energy_gap


def readout_distance(plan: Plan) -> float | None:
    """Mean over the chunk of |read-out - a^(K)|, normalised units; None without a read-out.

    Two heads on one context disagree where neither was trained.
    """
    if plan.readout is None or plan.trace is None:
        return None
    return float(np.abs(plan.readout - plan.trace.actions[-1, plan.chain]).mean())


def context_distance(plan: Plan) -> float | None:
    """How far C is from those of training (`models.contexts`); no energy is asked."""
    return plan.context_distance


def _several(plan: Plan) -> bool:
    return plan.trace is not None and plan.trace.energies.shape[1] > 1


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(PAPER, "final energy", "the paper's: energy where the descent ended", final_energy),
        Score(
            "initial_energy", "initial energy", "energy of the noise it began in", initial_energy
        ),
        Score("grad_norm", "final gradient", "slope of the energy at the last update", grad_norm),
        Score(
            "max_timestep_energy",
            "worst timestep",
            "largest energy of an action in the chunk",
            max_timestep_energy,
        ),
        Score(
            "chain_energy_spread",
            "spread of energies",
            "how far apart the chains' energies end",
            chain_energy_spread,
        ),
        Score(
            "chain_action_spread",
            "spread of actions",
            "how far apart the chains' actions end",
            chain_action_spread,
        ),
        Score("energy_gap", "energy gap", "what the read-out leaves on the table", energy_gap),
        Score(
            "readout_distance",
            "read-out distance",
            "how far the read-out's actions are from the energy's",
            readout_distance,
        ),
        Score(
            "context_distance",
            "context distance",
            "how far what is seen is from what was seen in training; no energy",
            context_distance,
        ),
    )
}


def plan_scores(plan: Plan) -> dict[str, float | None]:
    """Every score of one plan, by name."""
    return {name: score.of(plan) for name, score in SCORES.items()}
