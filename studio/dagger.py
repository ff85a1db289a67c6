"""Demonstrations of where a policy gets to, after DAgger (Ross et al. 2011), in two forms.

`lead`: the policy drives for a random number of plans, then the expert goes on from wherever that
led and finishes. Only the expert's part becomes the demonstration: whoever reads LIBERO's format
finds chunks of labels that were executed and that solved the task. `beta` > 0 lets the expert drive
that share of the plans before it takes over.

`relabelled`: the policy drives the episode, and each state that it looks at gets the chunk that the
expert would do from there, rolled ahead in a fork of the process. The states between two looks have
the rest of the first chunk: asked anew at each step the expert would hesitate at every grasp.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.checkpoint import load_checkpoint
from models.config import SamplerConfig
from models.policy import Policy
from studio.demos import COLLECTED
from studio.helm import REPLAN_EVERY
from studio.sim.expert import Expert
from studio.sim.expert_midway import successor
from studio.sim.foresight import Foresight
from studio.sim.libero_sim import SETTLE_ACTION, LiberoSim
from studio.sim.renderer import RENDER_SIZE

if TYPE_CHECKING:
    from studio.demonstrate import StepLog

GLANCE_S = 0.002  # between looks for the fork's answer
LEAD = 0.5  # of a suite's steps at most are the policy's; the expert needs the rest


@dataclass(frozen=True, slots=True)
class Dagger:
    """Whose states; `beta`: the expert's share of the plans before it takes over."""

    checkpoint: str
    sha256: str  # of its weights
    beta: float = 0.0
    relabel: bool = False  # the policy's steps with the expert's actions; no taking over

    @classmethod
    def of(cls, checkpoint: Path, beta: float = 0.0, relabel: bool = False) -> Dagger:
        """Raises CheckpointError when the folder can't be used, ValueError for `beta` and for a
        policy that knows other pictures than are collected."""
        if not 0 <= beta < 1:
            raise ValueError("--beta must lie in [0, 1)")
        if beta and relabel:
            raise ValueError("--beta is for an expert that takes over; leave it or --relabel out")
        info = load_checkpoint(checkpoint).info
        if info.pixels != COLLECTED:
            raise ValueError(
                f"{checkpoint}: it knows {info.pixels} pictures, and {COLLECTED} ones are collected"
            )
        return cls(str(checkpoint), info.sha256, beta, relabel)


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
    policy = _policy(dagger)
    plans = int(rng.integers(1, int(LEAD * max_steps) // REPLAN_EVERY + 1))
    last, steps = SETTLE_ACTION, 0
    for _ in range(plans):
        if rng.random() < dagger.beta:
            expert = successor(sim, last, rng)
            actions = (expert.act() for _ in range(REPLAN_EVERY))  # each for the state then reached
        else:
            actions = iter(_chunk(sim, policy, rng))
        for last in actions:
            steps += 1
            if sim.step(last).success:
                return successor(sim, last, rng), steps
    return successor(sim, last, rng), steps


def relabelled(
    sim: LiberoSim, dagger: Dagger, max_steps: int, rng: np.random.Generator, log: StepLog
) -> bool:
    """Let the policy drive the loaded scene; `log` gets its steps with the expert's actions.

    Ends when the task is solved (True), after `max_steps`, and where the expert has no answer, as
    while the hand works on a drawer. Raises NoSkill, and ValueError as `lead` does.
    """
    Expert(sim)  # raises NoSkill, which a fork could not tell
    policy, foresight = _policy(dagger), Foresight(sim)
    last = SETTLE_ACTION
    try:
        while len(log.actions) < max_steps:
            foresight.note(len(log.actions), "", last)
            ticket = foresight.ask(len(log.actions), "", REPLAN_EVERY)
            driven = _chunk(sim, policy, rng)  # while the fork thinks
            labels = _answer(foresight, ticket)
            if labels is None:
                return False
            for label, last in zip(labels, driven[: max_steps - len(log.actions)], strict=False):
                log.note(label, last)
                if sim.step(last).success:
                    return True
        return False
    finally:
        foresight.forget()  # no fork is left


def _answer(foresight: Foresight, ticket: int) -> np.ndarray | None:
    """The expert's chunk, None where it has none."""
    try:
        while (found := foresight.answer(ticket)) is None:
            time.sleep(GLANCE_S)
    except ValueError:
        return None
    return found.actions


def _policy(dagger: Dagger) -> Policy:
    """Raises ValueError when its weights are others by now."""
    policy = load_policy(dagger.checkpoint)
    if policy.checkpoint.sha256 != dagger.sha256:
        raise ValueError(f"{dagger.checkpoint}: its weights have changed meanwhile; use a copy")
    return policy


def _chunk(sim: LiberoSim, policy: Policy, rng: np.random.Generator) -> np.ndarray:
    """What the policy does next, [REPLAN_EVERY, 7]."""
    seed = int(rng.integers(2**31))
    side = min(policy.checkpoint.view.side, RENDER_SIZE)
    return policy.plan(sim.observe(size=side), SamplerConfig(), seed).actions[:REPLAN_EVERY]
