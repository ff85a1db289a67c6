"""The numbers of a run, and what depends on how far it is. No torch import: forms read these too.

TrainConfig   every number of a run
Draw          what chance decides in one step
Schedule      progress -> learning rate, stage, K_train and α of a step
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from models.config import PRECISIONS, SamplerConfig
from models.ranges import parse_range

AUTO_PRECISIONS = ("auto", *PRECISIONS[::-1])  # auto: bfloat16 where the device computes in it


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Numbers of a run; α, K and the sampler default to the paper's (Table V), but that the first
    `warm_fraction` of a run takes fewer MCMC steps, which the paper has not.

    The run ends after `steps` optimiser steps or `minutes` of training, whichever comes first;
    the schedules follow max(step/steps, elapsed/minutes), so a run always ends annealed.
    Raises ValueError, naming the option, for a number that cannot be trained with.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 32
    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup_steps: int = 200
    grad_clip: float = 1.0
    ema: float = 0.998
    k_min: int = 8
    k_max: int = 15
    alpha_min: float = 0.05
    alpha_max: float = 0.4
    warm_fraction: float = 0.6  # of the run with fewer MCMC steps, before the paper's own range
    warm_k_min: int = 3
    warm_k_max: int = 6
    chains_per_sample: int = 1
    contrast: float = 0.0  # weight of the contrastive term, which the paper does not have
    human_weight: float = 1.0  # of what a person did in recordings, beside a demonstration
    policy_weight: float = 0.0  # of what the policy itself did there; HG-DAgger has none
    balance: float = 0.0  # of the tasks: 0 every sample counts alike, 1 every task
    opening_weight: float = 1.0  # of a demonstration's first chunk, where the motion tells nothing
    wordings: int = 32  # of each instruction, made by rule; 1: as given only
    val_fraction: float = 0.05
    val_every: int = 300
    log_every: int = 20
    seed: int = 0
    precision: str = "auto"  # of all but the last MCMC step, which is float32
    gradient_checkpointing: bool = False  # of the language model: less memory, more time
    compile: bool = False  # the encoder, by a C++ compiler: faster steps, the first takes a minute
    cache_features: int = 0  # copies of each sample's frozen features on disk; 0: none
    eval_every: int = 0  # steps between evaluations in the simulator; 0: none
    eval_suite: str = "libero_object"
    eval_tasks: str = "0-9"
    eval_inits: str = "40-41"
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if not self.steps and not self.minutes:
            raise ValueError("training: give --steps or --minutes, or both")
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                option = name.replace("_", "-")
                raise ValueError(f"training: --{option} must lie in [{low:g}, {high:g}]: {value}")
        for name in ("eval_tasks", "eval_inits"):
            try:
                parse_range(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"training: --{name.replace('_', '-')}: {error}") from None
        for low, high in (
            (self.k_min, self.k_max),
            (self.warm_k_min, self.warm_k_max),
            (self.alpha_min, self.alpha_max),
        ):
            if not 0 < low <= high:
                raise ValueError(f"training: the range [{low}, {high}] is empty or not positive")


BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 1e9),
    "minutes": (1e-3, 1e6),
    "batch_size": (1, math.inf),
    "lr": (1e-9, 1.0),
    "weight_decay": (0.0, 1.0),
    "warmup_steps": (1, 1e9),
    "grad_clip": (1e-6, 1e6),
    "ema": (0.0, 1.0),
    "k_max": (1, 100),
    "warm_k_max": (1, 100),
    "alpha_max": (1e-4, 5.0),
    "warm_fraction": (0.0, 1.0),
    "chains_per_sample": (1, 64),
    "contrast": (0.0, 10.0),
    "human_weight": (0.0, 100.0),
    "policy_weight": (0.0, 100.0),
    "balance": (0.0, 1.0),
    "opening_weight": (1.0, 100.0),
    "wordings": (1, 1000),
    "val_fraction": (0.0, 0.9),
    "val_every": (1, 1e9),
    "log_every": (1, 1e9),
    "seed": (0, 2**31),
    "cache_features": (0, 100),
    "eval_every": (0, 1e9),
}


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decides in one training step (§II-C a)."""

    steps: int  # K_train
    step_size: float  # α
    chains: int  # noise chains per sample; the paper has one


@dataclass(frozen=True, slots=True)
class Schedule:
    """What depends on how far the run is."""

    config: TrainConfig

    def progress(self, step: int, elapsed: float) -> float:
        """Fraction of the run that is done, by steps or by seconds, whichever is further."""
        by_steps = step / self.config.steps if self.config.steps else 0.0
        by_time = elapsed / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def learning_rate(self, step: int, progress: float) -> float:
        """Linear warm-up over `warmup_steps`, then cosine to 1% of the peak."""
        warm = min(1.0, (step + 1) / self.config.warmup_steps)
        return (
            self.config.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
        )

    def draw(self, progress: float, rng: np.random.Generator) -> Draw:
        """K_train and α of one step; few MCMC steps first, the paper's range to the end."""
        c = self.config
        warm = progress < c.warm_fraction
        low, high = (c.warm_k_min, c.warm_k_max) if warm else (c.k_min, c.k_max)
        return Draw(
            steps=int(rng.integers(low, high + 1)),
            step_size=float(rng.uniform(c.alpha_min, c.alpha_max)),
            chains=c.chains_per_sample,
        )
