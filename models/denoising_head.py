"""Heads without an energy, to compare with: the same Transformer, trained to take noise away.

Diffusion  predicts the noise ε in the actions, as Diffusion Policy does (Chi et al. 2023): squared
           cosine schedule (Nichol & Dhariwal 2021), DDIM at inference (Song et al. 2021)
Flow       predicts the velocity from actions to noise, as π0's action expert does (Black et al.
           2024): straight paths, Euler steps at inference

Time t runs from 0, the expert's actions, to 1, noise; it is continuous in training, so that a plan
may take any number of steps. Shape letters: B, N, H, D_a as in `models.action_head`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from models.action_head import ActionTransformer
from models.config import ModelConfig
from models.mcmc import heed

CLIP = 1.5  # |a| of a guess at the actions; normalised ones fill [-1, 1]
OFFSET = 0.008  # s of Nichol & Dhariwal's Eq. 17
LEAST_SIGNAL = 0.01  # √ᾱ at t = 1, so that a guess at the actions stays finite
PERIODS = (0.01, 4.0)  # shortest and longest of the time embedding


class Process(Protocol):
    """How noise gets into actions, and out again."""

    def time(self, uniform: Tensor) -> Tensor:
        """Times to train at, of numbers drawn uniformly from [0, 1)."""
        ...

    def mix(self, actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(a_t, what the head is to say of it), for times that broadcast against the actions."""
        ...

    def step(self, noisy: Tensor, said: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """a at the `following`, lower time, from a_t and what the head said of it."""
        ...


class Diffusion:
    """a_t = √ᾱ(t)·a + √(1-ᾱ(t))·ε; the head says ε."""

    def time(self, uniform: Tensor) -> Tensor:
        return uniform

    def mix(self, actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        signal, spread = self._levels(time)
        return signal * actions + spread * noise, noise

    def step(self, noisy: Tensor, said: Tensor, time: Tensor, following: Tensor) -> Tensor:
        (signal, spread), (kept, left) = self._levels(time), self._levels(following)
        guess = ((noisy - spread * said) / signal).clamp(-CLIP, CLIP)
        noise = (noisy - signal * guess) / spread  # what the clipped guess leaves
        return kept * guess + left * noise

    @staticmethod
    def _levels(time: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ(t), 1 at t = 0, and √(1-ᾱ(t))."""
        angle = (time + OFFSET) / (1 + OFFSET) * math.pi / 2
        first = math.cos(OFFSET / (1 + OFFSET) * math.pi / 2)
        signal = (angle.cos() / first).clamp(LEAST_SIGNAL, 1.0)
        return signal, (1 - signal.square()).sqrt()


class Flow:
    """a_t = (1-t)·a + t·ε; the head says da_t/dt = ε - a."""

    def time(self, uniform: Tensor) -> Tensor:
        return uniform ** (1 / 1.5)  # Beta(1.5, 1): rather noisy ones, as π0 has it

    def mix(self, actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - time) * actions + time * noise, noise - actions

    def step(self, noisy: Tensor, said: Tensor, time: Tensor, following: Tensor) -> Tensor:
        return noisy - (time - following) * said


PROCESSES: dict[str, Process] = {"diffusion": Diffusion(), "flow": Flow()}


class DenoisingHead(ActionTransformer):
    """The action Transformer, told how much noise there is, with a vector for each action."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.process = PROCESSES[config.head]
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.out = nn.Linear(size, config.action_dim)

    def evaluate(
        self, actions: Tensor, keys_values: list[tuple[Tensor, Tensor]], time: Tensor
    ) -> Tensor:
        """ε or the velocity, [B, N, H, D_a], of noisy actions at times [B, N]."""
        tokens = self.tokens(actions)
        told = self.time(_embedding(time, tokens.shape[-1]).to(self.out.weight.dtype))
        told = told.to(tokens.dtype).unsqueeze(-2)
        return self.out(self.hidden(tokens + told, keys_values))


def _embedding(time: Tensor, size: int) -> Tensor:
    """Sines and cosines [..., size] of times in [0, 1], their periods spaced geometrically."""
    shortest, longest = PERIODS
    place = torch.linspace(0, 1, (size + 1) // 2, device=time.device)
    angle = 2 * math.pi * time.float().unsqueeze(-1) / (shortest * (longest / shortest) ** place)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :size]


class Head(Protocol):
    """A bound head, or anything that says what noise there is in actions at times [B, N]."""

    def __call__(self, actions: Tensor, time: Tensor, /) -> Tensor: ...


@torch.no_grad()
def denoise(
    head: Head,
    process: Process,
    noise: Tensor,
    steps: int,
    stop: Callable[[], bool] | None = None,
) -> Tensor:
    """Actions [B, N, H, D_a] from noise of that shape, in `steps` evaluations of a bound head.

    Raises InterruptedError as soon as `stop()` is true.
    """
    times = torch.linspace(1, 0, steps + 1, device=noise.device)
    actions = noise
    for time, following in pairwise(times):
        heed(stop)
        said = head(actions, time.expand(actions.shape[:2]))
        actions = process.step(actions, said, time, following)
    return actions
