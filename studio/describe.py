"""Settings in a few words, for the marks on the trace: only what differs from the defaults."""

from __future__ import annotations

from models.config import SamplerConfig
from studio.events import CameraPerturbation


def describe_camera(camera: CameraPerturbation) -> str:
    """What differs from the nominal camera, in a few words."""
    nominal, parts = CameraPerturbation(), []
    for name, unit in (
        ("orbit_horizontal", "°"),
        ("orbit_vertical", "°"),
        ("distance", "%"),
        ("turn_horizontal", "°"),
        ("turn_vertical", "°"),
        ("fov", "°"),
    ):
        if (value := getattr(camera, name)) != getattr(nominal, name):
            parts.append(f"{name.replace('_', ' ')} {value:g}{unit}")
    return ", ".join(parts) or "nominal camera"


def describe_sampler(sampler: SamplerConfig) -> str:
    """What differs from the paper's sampler, in a few words."""
    paper = SamplerConfig()
    parts = [
        f"{name} {getattr(sampler, name):g}"
        for name in SamplerConfig.__slots__
        if getattr(sampler, name) != getattr(paper, name)
    ]
    return ", ".join(parts) or "the paper's sampler"
