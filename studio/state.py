"""What the control loop says of itself: one immutable state, replaced as a whole on a change."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.config import SamplerConfig
from studio.events import (
    CameraPerturbation,
    LightPerturbation,
    Outcome,
    Perturbation,
    SceneSpec,
    SensorNoise,
    Status,
)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a camera stands (m, world frame), its unit viewing direction and its up vector."""

    position: tuple[float, ...]
    look: tuple[float, ...]
    up: tuple[float, ...]

    @classmethod
    def of(cls, position: np.ndarray, rotation: np.ndarray) -> Pose:
        """From MuJoCo's camera frame, which looks along its own -z with y up."""
        return cls(
            tuple(map(float, position)),
            tuple(map(float, -rotation[:, 2])),
            tuple(map(float, rotation[:, 1])),
        )


@dataclass(frozen=True, slots=True)
class LoopState:
    """All that a page needs to draw its controls; replaced as a whole on every change."""

    status: Status = Status.EMPTY
    outcome: Outcome | None = None
    message: str = ""
    scene: SceneSpec = field(default_factory=SceneSpec)
    task_instruction: str = ""
    instruction: str = ""
    camera: CameraPerturbation = field(default_factory=CameraPerturbation)
    light: LightPerturbation = field(default_factory=LightPerturbation)
    sensor: SensorNoise = field(default_factory=SensorNoise)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    hz: float = 20.0
    measured_hz: float = 0.0
    step: int = 0
    max_steps: int = 0
    n_inits: int = 0
    episode: int = 0
    pose: Pose | None = None
    nominal_pose: Pose | None = None

    @property
    def perturbation(self) -> Perturbation:
        """How the scene is seen."""
        return Perturbation(self.camera, self.light, self.sensor)
