"""MCMC on the energy (EB-VLA §II-C): actions are points, the sampler walks them downhill.

update         one step, Eq. 2-3, shared by inference and training
descend        K steps for a plan, with everything that explains them
train_descend  K steps of which only the last carries the graph (Eq. 4's a^(K))

An energy is any callable from actions [..., N, H, D_a] to per-timestep energies e_t [..., N, H].
Both e_t of the step size and the gradient come from one evaluation at the perturbed point; with
σ_L = 0.001 its energy differs from the unperturbed one far below what is visible. The recorded
energies are exact: all K + 1 unperturbed points are evaluated in one batched forward at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import SamplerConfig

Energy = Callable[[Tensor], Tensor]
CHUNK = 512  # points in one forward when many are evaluated


@dataclass(frozen=True, slots=True)
class Descent:
    """Tensors of one descent; leading axes `...` are those of a^(0) before H."""

    actions: Tensor  # [K+1, ..., H, D_a]
    timestep_energies: Tensor  # [K+1, ..., H], at the unperturbed points
    grad_norms: Tensor  # [K, ...], L2 norm over the chunk, before clipping
    step_sizes: Tensor  # [K, ..., H], α·exp(e_t/τ)
    updates: Tensor  # int64, of `...` without N: K, or after how many all chains had arrived


def update(
    energy: Energy,
    actions: Tensor,
    noise: Tensor | None,
    step_size: float,
    config: SamplerConfig,
    create_graph: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One MCMC step: (a^(k+1), g^(k) before clipping, α·exp(e_t/τ)).

    Actions and noise are [..., N, H, D_a]; the results are the same, the same and [..., N, H].
    The noise perturbs only where the gradient is taken, never the actions themselves (Eq. 2).
    With `create_graph` the result can be differentiated by the weights, through g and through
    the energies in the step size alike.
    """
    with torch.enable_grad():
        point = (actions if noise is None else actions + noise).detach().requires_grad_()
        energies = energy(point)
        (gradient,) = torch.autograd.grad(energies.mean(-1).sum(), point, create_graph=create_graph)
    energies = energies if create_graph else energies.detach()
    scale = step_size * torch.exp(energies / config.temperature)
    clipped = gradient.clamp(-config.grad_clip, config.grad_clip)
    moved = actions - scale.unsqueeze(-1) * clipped
    return moved.clamp(-config.action_clamp, config.action_clamp), gradient, scale


def draw_noise(
    config: SamplerConfig, shape: tuple[int, int], seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """a^(0) [B, N, H, D_a] and Langevin noise [K, B, N, H, D_a], one CPU stream per seed.

    Drawn up front so that a plan depends on its seed alone, not on the batch or the device.
    """
    streams = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    size = (config.steps + 1, config.chains, *shape)
    first, *rest = torch.stack([torch.randn(size, generator=s) for s in streams], dim=1)
    return config.init_std * first, config.langevin_std * torch.stack(rest)


def heed(stop: Callable[[], bool] | None) -> None:
    """Raises InterruptedError when `stop()` is true."""
    if stop is not None and stop():
        raise InterruptedError("stopped: a newer request waits")


@torch.no_grad()
def evaluate_energies(
    energy: Energy, actions: Tensor, stop: Callable[[], bool] | None = None
) -> Tensor:
    """e_t [..., N, H] of many points [..., N, H, D_a], without gradient, in bounded batches.

    Raises InterruptedError as soon as `stop()` is true.
    """
    parts = []
    for chunk in actions.split(CHUNK, dim=-3):
        heed(stop)
        parts.append(energy(chunk))
    return torch.cat(parts, dim=-2)


def descend(
    energy: Energy,
    initial: Tensor,
    noise: Tensor | None,
    config: SamplerConfig,
    stop: Callable[[], bool] | None = None,
) -> Descent:
    """K updates from `initial` [..., N, H, D_a] with `noise` [K, ..., N, H, D_a] (Eq. 2-3).

    With a `grad_cutoff` a chain makes no further one after that of a gradient no longer than it
    (EBT-Policy, Alg. 2), and there are no more than some chain needs.
    Raises InterruptedError as soon as `stop()` is true.
    """
    points, norms, scales = [initial], [], []
    arrived = initial.new_zeros(initial.shape[:-2], dtype=torch.bool)  # [..., N]
    updates = initial.new_full(initial.shape[:-3], config.steps, dtype=torch.long)
    for k in range(config.steps):
        heed(stop)
        jitter = None if noise is None or config.langevin_std == 0 else noise[k]
        moved, gradient, scale = update(energy, points[-1], jitter, config.step_size, config)
        norms.append(gradient.flatten(-2).norm(dim=-1))
        scales.append(scale)
        if not config.grad_cutoff:
            points.append(moved)
            continue
        points.append(torch.where(arrived[..., None, None], points[-1], moved))
        arrived = arrived | (norms[-1] <= config.grad_cutoff)
        updates = torch.where(arrived.all(-1), updates.clamp(max=k + 1), updates)
        if arrived.all():
            break
    trajectory = torch.stack(points, dim=-4)  # [..., K+1, N, H, D_a]
    flat = evaluate_energies(energy, trajectory.flatten(-4, -3), stop)
    energies = flat.unflatten(-2, trajectory.shape[-4:-2])
    return Descent(
        actions=torch.stack(points),
        timestep_energies=energies.movedim(-3, 0),
        grad_norms=torch.stack(norms),
        step_sizes=torch.stack(scales),
        updates=updates,
    )


def train_descend(
    energy: Energy,
    frozen: Energy,
    initial: Tensor,
    steps: int,
    step_size: float,
    config: SamplerConfig,
    normal: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """a^(K) of training: `frozen` (no graph) for K - 1 steps, `energy` for the last (Eq. 4).

    `initial` and the result are [..., N, H, D_a]. exp(e_t/τ) of the last step carries gradient as
    well: it is part of Eq. 3. `normal` draws the Langevin noise, standard normal of its argument's
    shape.
    """
    actions = initial
    for k in range(steps):
        noise = config.langevin_std * normal(actions)
        last = k == steps - 1
        actions, _, _ = update(
            energy if last else frozen, actions.detach(), noise, step_size, config, last
        )
    return actions
