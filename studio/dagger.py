"""The policy leads, the expert takes over: demonstrations that begin where a policy gets to.

After DAgger (Ross et al. 2011), in the form in which the expert really drives what it labels: the
policy drives for a random number of plans, then the expert goes on from wherever that led and
finishes. Only the expert's part becomes the demonstration: whoever reads LIBERO's format finds
chunks of labels that were executed and that solved the task. Asked anew at each of the policy's
steps, the expert would start over every grasp and every pull that is under way, which contradicts
what it does there itself. `beta` > 0 lets the expert drive that share of the plans before it takes
over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from models.checkpoint import load_checkpoint
from models.config import SamplerConfig
from models.policy import Policy
from studio.demos import COLLECTED
from studio.sim.expert import Expert
from studio.sim.libero_sim import SETTLE_ACTION, LiberoSim
from studio.sim.successor import successor

PLAN_STEPS = 8  # executed of every chunk, as in Live and in evaluation
LEAD = 0.5  # of a suite's steps at most are the policy's; the expert needs the rest


@dataclass(frozen=True, slots=True)
class Dagger:
    """Whose states the demonstrations begin from; `beta`: the expert's share of the plans there."""

    checkpoint: str
    sha256: str  # of its weights
    beta: float = 0.0

    @classmethod
    def of(cls, checkpoint: Path, beta: float = 0.0) -> Dagger:
        """Raises CheckpointError when the folder can't be used, ValueError for `beta` and for a
        policy that knows other pictures than are collected."""
        if not 0 <= beta < 1:
            raise ValueError("--beta must lie in [0, 1)")
        info = load_checkpoint(checkpoint).info
        if info.pixels != COLLECTED:
            raise ValueError(
                f"{checkpoint}: it knows {info.pixels} pictures, and {COLLECTED} ones are collected"
            )
        return cls(str(checkpoint), info.sha256, beta)


@lru_cache(maxsize=1)
def load_policy(checkpoint: str) -> Policy:
    """The policy of a checkpoint folder, loaded once. Raises CheckpointError.

    On the CPU: the simulator's EGL is in this process, and CUDA can't be beside it.
    """
    return Policy.from_pretrained(checkpoint, "cpu")


def lead(
    sim: LiberoSim, dagger: Dagger, max_steps: int, rng: np.random.Generator
) -> tuple[Expert, int]:
    """Drive the loaded scene with the policy; returns the expert at its turn, and the steps so far.

    The expert is `done` at once when nothing is left to do. Raises ValueError when the folder's
    weights are no longer those that the collection began with.
    """
    policy = load_policy(dagger.checkpoint)
    if policy.checkpoint.sha256 != dagger.sha256:
        raise ValueError(f"{dagger.checkpoint}: its weights have changed meanwhile; use a copy")
    plans = int(rng.integers(1, int(LEAD * max_steps) // PLAN_STEPS + 1))
    last, steps = SETTLE_ACTION, 0
    for _ in range(plans):
        if rng.random() < dagger.beta:
            expert = successor(sim, last, rng)
            actions = (expert.act() for _ in range(PLAN_STEPS))  # each for the state then reached
        else:
            seed = int(rng.integers(2**31))
            side = min(policy.checkpoint.view.side, sim.render_size)
            plan = policy.plan(sim.observe(size=side), SamplerConfig(), seed)
            actions = iter(plan.actions[:PLAN_STEPS])
        for last in actions:
            steps += 1
            if sim.step(last).success:
                return successor(sim, last, rng), steps
    return successor(sim, last, rng), steps
