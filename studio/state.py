"""What the control loop says: its state, one immutable whole, and what happens, to subscribers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from models.config import SamplerConfig
from models.types import Plan
from studio.events import (
    CameraPerturbation,
    EpisodeEvent,
    Frame,
    LightPerturbation,
    Mark,
    Outcome,
    Perturbation,
    SceneSpec,
    SensorNoise,
    Status,
    StepEvent,
)
from studio.guard import GuardSettings
from studio.pace import CONTROL_HZ
from studio.sequence import Sequence
from studio.teleop import Assists


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
    hz: float = CONTROL_HZ
    measured_hz: float = 0.0
    step: int = 0
    max_steps: int = 0
    n_inits: int = 0
    episode: int = 0
    hand: tuple[float, ...] = (0.0,) * 6  # of the end effector: position, m; axis-angle, rad
    driver: str = "policy"
    assists: Assists = field(default_factory=Assists)
    resting: bool = False  # a person drives and holds nothing: the scene waits
    inputs: int = 0  # changes of what a person holds, as counted here
    guard: GuardSettings = field(default_factory=GuardSettings)
    help: str = ""  # why the policy has stopped and asks for help
    sequence: Sequence = field(default_factory=Sequence)
    pose: Pose | None = None
    nominal_pose: Pose | None = None

    @property
    def perturbation(self) -> Perturbation:
        """How the scene is seen."""
        return Perturbation(self.camera, self.light, self.sensor)


class Subscriber(Protocol):
    """Told of everything that happens, on the loop's own thread. Must return quickly."""

    def on_state(self, state: LoopState) -> None: ...
    def on_episode(self, event: EpisodeEvent) -> None: ...
    def on_step(self, event: StepEvent) -> None: ...
    def on_plan(self, step: int, plan: Plan) -> None: ...
    def on_frame(self, frame: Frame) -> None: ...
    def on_mark(self, mark: Mark) -> None: ...


class Telling:
    """Keeps the state, and tells the subscribers what happens."""

    def __init__(self, state: LoopState, subscribers: Iterable[Subscriber]) -> None:
        self.state = state
        self._subscribers = list(subscribers)
        self._drawn = 0  # step of the newest picture

    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)
        self._tell("on_state", self.state)

    def _tell_episode(self, **event: object) -> None:
        state = self.state
        about = {"instruction": state.instruction, "perturbation": state.perturbation}
        self._tell("on_episode", EpisodeEvent(state.scene, **about, **event))

    def _mark(self, kind: str, text: str) -> None:
        self._tell("on_mark", Mark(self.state.step, kind, text))

    def _show(self, frame: Frame) -> None:
        self._drawn = frame.step
        self._tell("on_frame", frame)

    def _tell(self, method: str, *args: object) -> None:
        for subscriber in self._subscribers:
            getattr(subscriber, method)(*args)
