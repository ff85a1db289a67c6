"""Frozen configuration: the sampler's numbers and the three model presets (EB-VLA, Table V)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """MCMC inference (EB-VLA §II-C); the defaults are the paper's (Table V).

    Raises ValueError when a value is not finite or outside `BOUNDS`.
    """

    steps: int = 15  # K_inf
    step_size: float = 0.22  # α
    temperature: float = 9.0  # τ
    init_std: float = 1.0  # σ_init
    langevin_std: float = 0.001  # σ_L
    grad_clip: float = 1.0  # c
    action_clamp: float = 10.0  # a_max
    chains: int = 1  # N

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), SAMPLER_BOUNDS[field.name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"sampler: {field.name} must be a number, not {value!r}")
            if field.type == "int" and value != int(value):
                raise ValueError(f"sampler: {field.name} must be a whole number, not {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(
                    f"sampler: {field.name} must lie in [{low:g}, {high:g}], not {value!r}"
                )


SAMPLER_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 100),
    "step_size": (1e-4, 5.0),
    "temperature": (0.1, 1000.0),
    "init_std": (0.0, 10.0),
    "langevin_std": (0.0, 1.0),
    "grad_clip": (1e-4, 100.0),
    "action_clamp": (0.1, 100.0),
    "chains": (1, 64),
}
