"""Settings in a few words, for the marks on the trace: only what differs from the defaults."""

from __future__ import annotations

from models.config import SamplerConfig
from studio.events import CameraPerturbation, LightPerturbation, SensorNoise


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


def describe_light(light: LightPerturbation) -> str:
    """What differs from LIBERO's light, in a few words."""
    nominal, parts = LightPerturbation(), []
    for name, unit in (("intensity", "%"), ("azimuth", "°"), ("elevation", "°")):
        if (value := getattr(light, name)) != getattr(nominal, name):
            parts.append(f"{name} {value:g}{unit}")
    if light.saturation:
        parts.append(f"hue {light.hue:g}° at {light.saturation:g}%")
    return ", ".join(parts) or "nominal light"


def describe_sensor(sensor: SensorNoise) -> str:
    """The noise and its severity, in a few words."""
    return "clear" if sensor.nominal else f"{sensor.kind.replace('_', ' ')} {sensor.severity}"


def describe_sampler(sampler: SamplerConfig) -> str:
    """What differs from the paper's sampler, in a few words."""
    paper = SamplerConfig()
    parts = [
        f"{name} {getattr(sampler, name):g}"
        for name in SamplerConfig.__slots__
        if getattr(sampler, name) != getattr(paper, name)
    ]
    return ", ".join(parts) or "the paper's sampler"
