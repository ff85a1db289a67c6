"""Scores of a plan, each from its definition."""

import numpy as np
import pytest

from models.config import SamplerConfig
from models.types import DescentTrace, Observation, Plan
from studio.scores import SCORES, plan_scores

K, H, D = 3, 4, 7


def make_plan(chains: int, gap: float | None = None, human: bool = False) -> Plan:
    """A plan of random numbers, with a read-out if it has a gap to it; the last chain is chosen."""
    rng = np.random.default_rng(chains)
    per_step = rng.normal(10, 1, (K + 1, chains, H))
    trace = DescentTrace(
        actions=rng.normal(size=(K + 1, chains, H, D)),
        energies=per_step.mean(-1),
        timestep_energies=per_step,
        grad_norms=rng.random((K, chains)),
        step_sizes=rng.random((K, chains, H)),
    )
    obs = Observation({}, np.zeros(8, np.float32), "")
    return Plan(
        np.zeros((H, D)), None if human else trace, chains - 1, SamplerConfig(), 0, obs, 0.1,
        energy_gap=gap, readout=None if gap is None else rng.normal(size=(H, D)),
        context_distance=gap,
    )  # fmt: skip


def test_scores_of_several_chains():
    plan = make_plan(chains=3, gap=0.5)
    trace, chosen = plan.trace, 2
    ends = trace.actions[-1]
    assert plan_scores(plan) == pytest.approx(
        {
            "final_energy": trace.energies[-1, chosen],
            "initial_energy": trace.energies[0, chosen],
            "grad_norm": trace.grad_norms[-1, chosen],
            "max_timestep_energy": max(trace.timestep_energies[-1, chosen]),
            "chain_energy_spread": np.std(trace.energies[-1], ddof=1),
            "chain_action_spread": np.sqrt(np.mean((ends - ends.mean(0)) ** 2) * 3 / 2),
            "energy_gap": 0.5,
            "context_distance": 0.5,
            "readout_distance": np.mean(np.abs(ends[chosen] - plan.readout)),
        }
    )


def test_a_plan_without_what_a_score_needs_has_none():
    one_chain = plan_scores(make_plan(chains=1))
    missing = {name for name, value in one_chain.items() if value is None}
    assert missing == {
        "chain_energy_spread", "chain_action_spread", "energy_gap", "readout_distance",
        "context_distance",
    }  # fmt: skip
    assert set(plan_scores(make_plan(chains=1, human=True)).values()) == {None}


def test_every_score_is_documented_under_its_own_name():
    assert all(name == score.name for name, score in SCORES.items())
    assert all(score.label and score.description and score.of.__doc__ for score in SCORES.values())
