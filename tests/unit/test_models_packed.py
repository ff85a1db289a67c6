"""Packed linear layers beside the plain ones that they stand for."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.action_head import Context
from models.config import SamplerConfig, preset
from models.energy_head import EnergyHead
from models.mcmc import descend, draw_noise
from models.packed import LEAST, PackedLinear, pack

CONFIG = replace(preset("eb-vla-tiny"), hidden_size=768)


def heads(dtype: torch.dtype) -> tuple[EnergyHead, EnergyHead, Context]:
    """A head whose energy depends visibly on the actions, the same packed, and a context."""
    torch.manual_seed(0)
    plain = EnergyHead(CONFIG)
    with torch.no_grad():
        for weight in plain.parameters():
            weight.mul_(1.3)
    plain.to_precision(dtype).requires_grad_(False)
    packed = copy.deepcopy(plain)
    pack(packed)
    states = torch.randn(3, CONFIG.layers_extracted, 2, 5, 768).to(dtype)
    return plain, packed, Context(tuple(states[0]), tuple(states[1]), states[2, 0, :, :1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_energies_gradients_and_descents_are_the_plain_ones(dtype, tolerance):
    plain, packed, context = heads(dtype)
    able = dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    layers = 7 * len(packed.blocks) * able
    assert sum(isinstance(m, PackedLinear) for m in packed.modules()) == layers
    sampler = SamplerConfig(chains=2)
    initial, noise = draw_noise(sampler, (CONFIG.horizon, CONFIG.action_dim), [1, 2])
    found = []
    for head in (plain, packed):
        with torch.no_grad():
            bound = head.bind(context)
        point = initial.clone().requires_grad_()
        energies = bound(point)
        (gradient,) = torch.autograd.grad(energies.sum(), point)
        with torch.no_grad():
            found.append((energies, gradient, descend(bound, initial, noise, sampler).actions))
    assert found[0][1].abs().max() > 0.01 and (found[0][2][-1] - initial).abs().max() > 0.01
    for expected, got in zip(*found, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(got / scale, expected / scale, atol=tolerance, rtol=0)


def test_small_layers_stay_and_a_bias_counts():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, LEAST // 16)).requires_grad_(False)
    x = torch.randn(3, 4, 8)
    expected = module(x)
    pack(module)
    assert isinstance(module[0], nn.Linear) and isinstance(module[1], PackedLinear)
    torch.testing.assert_close(module(x), expected)
