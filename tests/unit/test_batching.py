"""Plans asked for at once, made together; what a server's clients see of it is in test_serve."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.checkpoint import load_checkpoint
from models.config import SamplerConfig
from models.policy import EnergyPolicy
from models.types import Observation
from studio.batching import Batcher, Together
from tests.helpers import wait_for


def observation(seed: int, size: int = 128) -> Observation:
    draw = np.random.default_rng(seed)
    images = {
        name: draw.integers(0, 256, (size, size, 3), np.uint8) for name in ("agentview", "wrist")
    }
    return Observation(images, draw.normal(size=8).astype(np.float32), "pick up the milk")


class Held(EnergyPolicy):
    """Makes no batch before it is let go."""

    def plan_batch(self, observations, sampler, seeds, stop=None):
        self.sizes.append(len(observations))
        assert self.gate.wait(120)
        return super().plan_batch(observations, sampler, seeds, stop)


@pytest.fixture
def policy(debug_checkpoint):
    policy = Held(load_checkpoint(debug_checkpoint), device="cpu")
    policy.gate, policy.sizes = threading.Event(), []
    return policy


def test_those_who_wait_together_get_what_each_alone_would(policy):
    sizes: list[int] = []
    batcher = Batcher(policy, 3, sizes.append)
    first = batcher.submit(observation(0), SamplerConfig(), 0)
    wait_for(lambda: sizes)  # the first one is under way
    asked = [batcher.submit(observation(seed), SamplerConfig(), seed) for seed in range(1, 6)]
    other = batcher.submit(observation(6), SamplerConfig(steps=4), 6)
    gone = batcher.submit(observation(7), SamplerConfig(), 7)
    assert gone.cancel()
    policy.gate.set()
    plans = [future.result(30) for future in [first, *asked, other]]
    assert sizes == [1, 3, 2, 1]  # at most three, and a sampler of its own is a batch of its own
    for seed, plan in enumerate(plans):
        alone = policy.plan(observation(seed), plan.sampler, seed)
        np.testing.assert_allclose(plan.actions, alone.actions, atol=1e-4)
        assert plan.final_energy == pytest.approx(alone.final_energy, abs=1e-3)


def test_plans_of_many_chains_are_a_smaller_batch(policy):
    """A batch can't be interrupted: what else waits would wait for all its chains."""
    batcher, many = Batcher(policy, 8, (sizes := []).append), SamplerConfig(steps=2, chains=4)
    first = batcher.submit(observation(0), SamplerConfig(steps=2), 0)
    wait_for(lambda: sizes)
    asked = [batcher.submit(observation(seed), many, seed) for seed in range(5)]
    policy.gate.set()
    for future in [first, *asked]:
        future.result(30)
    assert sizes == [1, 2, 2, 1]


def test_who_leaves_takes_the_pictures_along(policy):
    batcher = Batcher(policy)
    for seed in range(4):
        batcher.submit(observation(seed), SamplerConfig(), seed).cancel()
    last = batcher.submit(observation(9), SamplerConfig(), 9)
    assert len(batcher._waiting) <= 1
    policy.gate.set()
    assert np.isfinite(last.result(30).actions).all()


def test_an_error_is_told_to_those_whom_it_concerns(policy):
    policy.gate.set()
    batcher = Batcher(policy)
    broken = observation(0)
    broken.proprio[0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        batcher.plan(broken)
    assert np.isfinite(batcher.plan(observation(1)).actions).all()
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.plan(observation(1))


def test_the_others_of_a_batch_do_not_notice(policy):
    batcher = Batcher(policy)
    first = batcher.submit(observation(0), SamplerConfig())  # the rest gathers meanwhile
    broken = observation(1)
    broken.proprio[0] = 3e38
    bad = batcher.submit(broken, SamplerConfig())
    good = [batcher.submit(observation(seed), SamplerConfig(), seed) for seed in (2, 3)]
    policy.gate.set()
    with pytest.raises(ValueError, match="proprio"):
        bad.result(30)
    assert all(np.isfinite(plan.result(30).actions).all() for plan in [first, *good])


def test_sessions_plan_together_with_all_that_the_policy_has(policy):
    together = Together(policy)
    assert together.device == policy.device and together.checkpoint is policy.checkpoint
    first = together._batcher.submit(observation(0), SamplerConfig())
    wait_for(lambda: policy.sizes)
    with ThreadPoolExecutor(2) as sessions:
        asked = [sessions.submit(together.plan, observation(s), None, s) for s in (1, 2)]
        wait_for(lambda: len(together._batcher._waiting) == 2)
        policy.gate.set()
        plans = [future.result(30) for future in (first, *asked)]
    assert policy.sizes == [1, 2]
    together.close()  # an episode may still be at it
    again = together.plan(observation(1), None, 1)
    np.testing.assert_allclose(again.actions, plans[1].actions, atol=1e-4)


def test_closing_makes_what_was_asked_for_before(policy):
    batcher = Batcher(policy)
    asked = batcher.submit(observation(0), SamplerConfig())
    batcher.close()
    policy.gate.set()
    assert np.isfinite(asked.result(30).actions).all()
