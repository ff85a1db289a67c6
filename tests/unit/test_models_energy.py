"""The energy head against a slow reference, and the sampler on energies with known answers."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from models.action_head import Context, attention, rotary_angles, rotate
from models.config import SamplerConfig, preset
from models.energy_head import EnergyHead
from models.mcmc import descend, draw_noise, evaluate_energies, train_descend, update

CONFIG = preset("debug")
QUIET = SamplerConfig(langevin_std=0.0)


def make_context(batch: int = 2, seed: int = 0) -> Context:
    g = torch.Generator().manual_seed(seed)
    d, layers = CONFIG.hidden_size, CONFIG.layers_extracted
    return Context(
        tuple(torch.randn(batch, CONFIG.latents, d, generator=g) for _ in range(layers)),
        tuple(torch.randn(batch, CONFIG.vision_tokens, d, generator=g) for _ in range(layers)),
        torch.randn(batch, 1, d, generator=g),
    )


def make_head() -> EnergyHead:
    torch.manual_seed(0)
    return EnergyHead(CONFIG)


# -- a plain float64 reference, one chunk and one head at a time --------------------------------


def norm(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rope_slow(x):
    """x [H, dh]: rotate the pairs (i, i + dh/2) by t·base^(-2i/dh)."""
    rows, half = [], x.shape[1] // 2
    for t in range(len(x)):
        angles = torch.tensor([t * 1e4 ** (-2 * i / x.shape[1]) for i in range(half)]).double()
        a, b = x[t, :half], x[t, half:]
        rows.append(
            torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()])
        )
    return torch.stack(rows)


def attend_slow(q, k, v, heads, rope):
    size, out = q.shape[1] // heads, []
    for i in range(heads):
        part = slice(i * size, (i + 1) * size)
        qi, ki, vi = q[:, part], k[:, part], v[:, part]
        if rope:
            qi, ki = rope_slow(qi), rope_slow(ki)
        rows = []
        for query in qi:
            weights = torch.exp(torch.stack([query @ key for key in ki]) / math.sqrt(size))
            rows.append((weights[:, None] * vi).sum(0) / weights.sum())
        out.append(torch.stack(rows))
    return torch.cat(out, dim=1)


def energies_slow(w: dict, context: Context, row: int, chunk: torch.Tensor) -> torch.Tensor:
    """e_t [H] of one chunk [H, D_a], written out from the equations."""
    x = chunk @ w["project.weight"].T + w["project.bias"]
    for i, layer in enumerate(CONFIG.block_layers):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if f"blocks.{i}." in k}
        c = torch.cat([context.latents[layer], context.proprio, context.vision[layer]], 1)
        c = norm(c[row].double(), b["context_norm.weight"])
        q, k, v = (norm(x, b["self_norm.weight"]) @ b["qkv.weight"].T).chunk(3, -1)
        x = x + attend_slow(q, k, v, CONFIG.head_heads, True) @ b["self_out.weight"].T
        q = norm(x, b["cross_norm.weight"]) @ b["cross_q.weight"].T
        k, v = (c @ b["context_kv.weight"].T).chunk(2, -1)
        x = x + attend_slow(q, k, v, CONFIG.head_heads, False) @ b["cross_out.weight"].T
        gate, up = (norm(x, b["ffn_norm.weight"]) @ b["gate_up.weight"].T).chunk(2, -1)
        x = x + (gate * torch.sigmoid(gate) * up) @ b["down.weight"].T
    return (norm(x, w["norm.weight"]) @ w["energy.weight"].T + w["energy.bias"])[:, 0]


def test_a_bound_head_equals_the_slow_reference_whenever_it_is_asked():
    head, context = make_head(), make_context()
    weights = {k: v.double() for k, v in head.state_dict().items()}
    bound = head.bind(context)
    for actions in torch.randn(2, 2, 2, CONFIG.horizon, CONFIG.action_dim):
        fast = bound(actions)
        for row, chain in itertools.product(range(2), range(2)):
            slow = energies_slow(weights, context, row, actions[row, chain].double())
            torch.testing.assert_close(fast[row, chain].double(), slow, rtol=1e-4, atol=1e-5)


def test_chains_do_not_see_each_other():
    bound, actions = make_head().bind(make_context()), torch.randn(2, 4, 8, 7)
    together = bound(actions)
    torch.testing.assert_close(together[:, 1:2], bound(actions[:, 1:2]), rtol=1e-5, atol=1e-6)


def test_detached_energy_leaves_the_backbone_without_gradient():
    context = make_context()
    context.proprio.requires_grad_()
    head = make_head()
    head.bind(context).detach()(torch.randn(2, 1, 8, 7)).sum().backward()
    assert context.proprio.grad is None
    head.bind(context)(torch.randn(2, 1, 8, 7)).sum().backward()
    assert context.proprio.grad is not None


def test_rope_depends_on_distance_only():
    angles = rotary_angles(12, 16, torch.device("cpu"))
    q, k = torch.randn(16), torch.randn(16)
    rq, rk = rotate(q.expand(12, 16), angles), rotate(k.expand(12, 16), angles)
    products = rq @ rk.T
    for offset in range(-5, 6):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rq.norm(dim=1), q.norm().expand(12), rtol=1e-5, atol=1e-5)


def test_attention_equals_torch():
    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind(0)
    torch.testing.assert_close(
        attention(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v)
    )


def test_last_block_reads_the_last_layer_and_the_rest_are_spread():
    assert preset("eb-vla-tiny").block_layers == (1, 2, 3, 4)
    assert preset("eb-vla-0.5b").block_layers == (6, 11, 17, 22)


# -- the sampler on energies with a known answer ------------------------------------------------

TARGET = torch.linspace(-0.5, 0.5, 7)


def quadratic(actions: torch.Tensor) -> torch.Tensor:
    """e_t = |a_t - target|² · H / 2, so that ∂E/∂a_t = a_t - target."""
    return (actions - TARGET).square().sum(-1) * actions.shape[-2] / 2


def test_descent_goes_down_to_the_minimum_and_scores_the_last_point():
    config = replace(QUIET, steps=60, step_size=0.1, temperature=1000.0, grad_clip=100.0)
    initial, _ = draw_noise(config, (8, 7), [3])
    out = descend(quadratic, initial, None, config)
    energies = out.timestep_energies.mean(-1)
    assert len(energies) == config.steps + 1 == len(out.actions)
    assert (energies[1:] < energies[:-1]).all()
    torch.testing.assert_close(out.actions[-1], TARGET.expand_as(initial), atol=0.01, rtol=0)
    torch.testing.assert_close(out.timestep_energies[-1], quadratic(out.actions[-1]))
    torch.testing.assert_close(out.timestep_energies[0], quadratic(initial))


def test_a_gradient_below_the_cutoff_ends_the_descent_of_its_chain_alone():
    config = replace(
        QUIET, steps=60, step_size=0.1, temperature=1000.0, grad_clip=100.0, grad_cutoff=0.5
    )
    near = (TARGET + 0.1).expand(1, 1, 8, 7)
    far = (TARGET + 1.0).expand(1, 1, 8, 7)
    rows = torch.cat([torch.cat([near, near], dim=1), torch.cat([near, far], dim=1)])  # [2, 2, ...]
    out = descend(quadratic, rows, None, config)
    endless = descend(quadratic, rows, None, replace(config, grad_cutoff=0.0))
    few, many = out.updates.tolist()
    assert few < many < 60 and endless.updates.tolist() == [60, 60]
    assert len(out.grad_norms) == many == len(out.actions) - 1
    assert out.grad_norms[few - 1, 0].max() <= 0.5 < out.grad_norms[few - 2, 0].max()
    assert torch.equal(out.actions[few, :, 0], out.actions[-1, :, 0])  # arrived, and stays
    assert torch.equal(out.actions[: few + 1, 0], endless.actions[: few + 1, 0])
    alone = descend(quadratic, rows[1:], None, config)
    assert torch.equal(alone.actions[:, 0], out.actions[:, 1])


def test_update_is_equation_3_with_elementwise_clipping():
    actions = torch.randn(2, 3, 8, 7)
    config = replace(QUIET, grad_clip=0.3, temperature=50.0)
    moved, gradient, scale = update(quadratic, actions, None, 0.22, config)
    e, g = quadratic(actions), actions - TARGET
    torch.testing.assert_close(gradient, g)
    torch.testing.assert_close(scale, 0.22 * torch.exp(e / 50.0))
    torch.testing.assert_close(moved, actions - scale[..., None] * g.clamp(-0.3, 0.3))
    assert (gradient.abs() > 0.3).any()


def test_gradient_norms_are_those_before_clipping():
    config = replace(QUIET, grad_clip=1e-3, steps=2)
    initial = torch.randn(1, 2, 8, 7)
    out = descend(quadratic, initial, None, config)
    torch.testing.assert_close(out.grad_norms[0], (initial - TARGET).flatten(-2).norm(dim=-1))


def test_actions_are_clamped():
    config = replace(QUIET, action_clamp=0.2, steps=3, init_std=3.0)
    out = descend(quadratic, torch.full((1, 1, 8, 7), 3.0), None, config)
    assert out.actions[1:].abs().max() <= 0.2


def test_langevin_noise_moves_the_gradient_but_does_not_accumulate():
    """On a flat energy nothing moves, however strong the noise."""
    config = replace(SamplerConfig(), langevin_std=1.0, steps=5)
    initial, noise = draw_noise(config, (8, 7), [0])
    out = descend(lambda a: 0 * a.sum(-1), initial, noise, config)
    assert torch.equal(out.actions[-1], initial)
    _, gradient, _ = update(quadratic, initial, noise[0], 0.1, replace(config, grad_clip=100.0))
    torch.testing.assert_close(gradient, initial + noise[0] - TARGET)


def test_a_step_asks_at_its_point_plus_its_noise_and_goes_as_far_as_the_energy_there_says():
    config = SamplerConfig(steps=4, chains=2, langevin_std=0.5)
    initial, noise = draw_noise(config, (8, 7), [0, 1])
    asked = []

    def energy(points):
        asked.append(points.detach())
        return quadratic(points)

    out = descend(energy, initial, noise, config)
    for k in range(config.steps):
        point = out.actions[k] + noise[k]
        assert torch.equal(asked[k], point)
        scale = config.step_size * torch.exp(quadratic(point) / config.temperature)
        torch.testing.assert_close(out.step_sizes[k], scale)


def test_each_std_scales_its_own_noise():
    plain = SamplerConfig(init_std=1.0, langevin_std=0.1)
    initial, noise = draw_noise(plain, (8, 7), [5])
    wide = draw_noise(replace(plain, init_std=2.0), (8, 7), [5])
    rough = draw_noise(replace(plain, langevin_std=0.2), (8, 7), [5])
    assert torch.equal(wide[0], 2 * initial) and torch.equal(wide[1], noise)
    assert torch.equal(rough[0], initial) and torch.equal(rough[1], 2 * noise)


def test_noise_of_a_seed_does_not_depend_on_its_batch():
    config = SamplerConfig(chains=2)
    alone, together = draw_noise(config, (8, 7), [5]), draw_noise(config, (8, 7), [1, 5])
    assert torch.equal(alone[0][0], together[0][1]) and torch.equal(
        alone[1][:, 0], together[1][:, 1]
    )
    assert alone[1].shape == (config.steps, 1, 2, 8, 7)


def test_energies_in_chunks_equal_energies_at_once_and_stop():
    points = torch.randn(1, 1100, 8, 7)
    torch.testing.assert_close(evaluate_energies(quadratic, points), quadratic(points))
    with pytest.raises(InterruptedError):
        evaluate_energies(quadratic, points, stop=lambda: True)


# -- the gradient of training -------------------------------------------------------------------


def test_training_gradient_equals_a_plain_float64_reimplementation():
    """Only the last step carries the graph; exp(e/τ) and the clipped gradient both do."""
    weight = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight.requires_grad_()
    initial = torch.randn(2, 1, 8, 7, dtype=torch.float64)
    config = replace(QUIET, grad_clip=0.2)

    def energy(a):
        return torch.tanh(a @ weight).square().sum(-1)

    final = train_descend(energy, energy, initial, 3, 0.2, config)
    (ours,) = torch.autograd.grad(final.abs().sum(), weight)

    def by_hand(a, w):
        """The gradient of E written out: no autograd of a."""
        t = torch.tanh(a @ w)
        e, g = t.square().sum(-1), (2 * t * (1 - t.square())) @ w.T / 8
        scale = 0.2 * torch.exp(e / config.temperature)
        return (a - scale[..., None] * g.clamp(-0.2, 0.2)).clamp(-10, 10)

    a = initial
    for _ in range(2):
        a = by_hand(a, weight).detach()
    (plain,) = torch.autograd.grad(by_hand(a, weight).abs().sum(), weight)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_every_step_of_training_asks_at_a_point_with_fresh_noise():
    """On a flat energy, where the actions stay: K - 1 times the frozen one, then the trained."""
    initial, normal = torch.randn(2, 1, 8, 7), torch.randn(3, 2, 1, 8, 7)
    draws, asked = iter(normal), []

    def flat(name):
        return lambda points: (asked.append((name, points.detach())), 0 * points.sum(-1))[1]

    config = SamplerConfig(langevin_std=0.5)
    train_descend(flat("trained"), flat("frozen"), initial, 3, 0.2, config, lambda _: next(draws))
    assert [name for name, _ in asked] == ["frozen", "frozen", "trained"]
    assert all(torch.equal(at, initial + 0.5 * z) for (_, at), z in zip(asked, normal, strict=True))


def test_head_learns_through_the_last_step():
    head = make_head()
    bound = head.bind(make_context())
    initial = torch.randn(2, 2, 8, 7)
    final = train_descend(bound, bound.detach(), initial, 3, 0.2, SamplerConfig())
    final.abs().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
