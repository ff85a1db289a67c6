"""Descents as CUDA graphs: the numbers of the plain loop, whatever is planned one after another."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.descent import random_context
from models.action_head import Context
from models.captured import CapturedDescents
from models.checkpoint import TrainingRecord, save_checkpoint
from models.config import ModelConfig, SamplerConfig, preset
from models.energy_head import EnergyHead
from models.mcmc import Descent, descend, draw_noise
from models.model import EBVLA
from models.normalize import Statistics
from models.policy import Policy
from models.types import Observation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CUDA = torch.device("cuda")


def random_contexts(config: ModelConfig, dtype: torch.dtype, count: int) -> Context:
    """Those of `count` observations."""
    each = [random_context(config, CUDA, dtype) for _ in range(count)]
    latents, vision = (
        tuple(map(torch.cat, zip(*(getattr(c, part) for c in each), strict=True)))
        for part in ("latents", "vision")
    )
    return Context(latents, vision, torch.cat([c.proprio for c in each]))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The debug preset on random weights."""
    rng = np.random.default_rng(0)
    statistics = Statistics.fit(rng.normal(size=(64, 7)), rng.normal(size=(64, 8)))
    torch.manual_seed(0)
    return save_checkpoint(tmp_path / "c", EBVLA(preset("debug")), statistics, TrainingRecord())


def observation(seed: int) -> Observation:
    image = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return Observation({"agentview": image, "wrist": image}, np.zeros(8, np.float32), "go")


@pytest.fixture(autouse=True)
def whole_float32():
    """Convolutions without TF32, as the CPU computes them."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["eb-vla-tiny", "eb-vla-0.5b"])
def test_a_graph_gives_the_numbers_of_the_loop(name, dtype, batch):
    torch.manual_seed(0)
    config, captured = preset(name), CapturedDescents()
    head = EnergyHead(config).to(CUDA).to_precision(dtype).requires_grad_(False)
    shape = (config.horizon, config.action_dim)
    with torch.no_grad():
        for seed, chains in ((0, 1), (1, 1), (2, 4), (3, 1), (4, 4), (5, 4)):
            energy = head.bind(random_contexts(config, dtype, batch))
            sampler = SamplerConfig(chains=chains)
            seeds = range(seed, seed + batch)
            start, noise = (t.to(CUDA) for t in draw_noise(sampler, shape, seeds))
            plain, replayed = (way(energy, start, noise, sampler) for way in (descend, captured))
            for f in fields(Descent):
                a, b = getattr(replayed, f.name), getattr(plain, f.name)
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert captured._usable
    assert len(captured._kept) == 2  # a graph per number of chains


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_policy_on_the_gpu_plans_as_on_the_cpu(checkpoint, batch):
    cpu, gpu = (Policy.from_pretrained(checkpoint, device) for device in ("cpu", "cuda"))
    seen = [observation(seed) for seed in range(batch)]
    plans, others = (p.plan_batch(seen, SamplerConfig(), range(batch)) for p in (cpu, gpu))
    for plan, other in zip(plans, others, strict=True):
        np.testing.assert_allclose(other.trace.energies, plan.trace.energies, rtol=2e-2, atol=2e-2)
        np.testing.assert_allclose(other.actions, plan.actions, atol=2e-2)


@pytest.mark.parametrize("batch", [3, 5])
def test_plans_made_together_in_bfloat16_are_those_made_alone(checkpoint, batch):
    """To 1e-2: other batch sizes, other kernels, and each rounds to bfloat16 in its own way.

    That is four times what the CPU's kernels differ by; the context of another observation makes
    actions differ by 2e-2 and more.
    """
    policy = Policy.from_pretrained(checkpoint, "cuda", "bfloat16")
    seen = [observation(seed) for seed in range(batch)]
    together = policy.plan_batch(seen, SamplerConfig(), range(batch))
    for seed, plan in enumerate(together):
        alone = policy.plan(seen[seed], seed=seed)
        np.testing.assert_allclose(plan.actions, alone.actions, rtol=0, atol=1e-2)
        np.testing.assert_allclose(plan.trace.energies, alone.trace.energies, rtol=0, atol=1e-2)
