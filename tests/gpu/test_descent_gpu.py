"""Descents as CUDA graphs: the numbers of the plain loop, whatever is planned one after another."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from benchmarks.descent import random_context
from models.captured import CapturedDescents
from models.checkpoint import TrainingRecord, save_checkpoint
from models.config import SamplerConfig, preset
from models.energy_head import EnergyHead
from models.mcmc import Descent, descend, draw_noise
from models.model import EBVLA
from models.normalize import Statistics
from models.policy import Policy
from models.types import Observation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["eb-vla-tiny", "eb-vla-0.5b"])
def test_a_graph_gives_the_numbers_of_the_loop(name, dtype):
    torch.manual_seed(0)
    config, captured = preset(name), CapturedDescents()
    head = EnergyHead(config).to(CUDA).to_precision(dtype).requires_grad_(False)
    shape = (config.horizon, config.action_dim)
    with torch.no_grad():
        for seed, chains in ((0, 1), (1, 1), (2, 4), (3, 1)):
            energy = head.bind(random_context(config, CUDA, dtype))
            sampler = SamplerConfig(chains=chains)
            start, noise = (t.to(CUDA) for t in draw_noise(sampler, shape, [seed]))
            plain, replayed = (way(energy, start, noise, sampler) for way in (descend, captured))
            for f in fields(Descent):
                a, b = getattr(replayed, f.name), getattr(plain, f.name)
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert captured._usable and len(captured._kept) == 2


def test_a_policy_on_the_gpu_plans_as_on_the_cpu(tmp_path):
    rng = np.random.default_rng(0)
    statistics = Statistics.fit(rng.normal(size=(64, 7)), rng.normal(size=(64, 8)))
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "c", EBVLA(preset("debug")), statistics, TrainingRecord())
    cpu, gpu = (Policy.from_pretrained(tmp_path / "c", d) for d in ("cpu", "cuda"))
    for seed in range(3):
        image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        seen = Observation({"agentview": image, "wrist": image}, np.zeros(8, np.float32), "go")
        plan, other = (policy.plan(seen, seed=seed) for policy in (cpu, gpu))
        np.testing.assert_allclose(other.trace.energies, plan.trace.energies, rtol=2e-2, atol=2e-2)
        np.testing.assert_allclose(other.actions, plan.actions, atol=2e-2)
