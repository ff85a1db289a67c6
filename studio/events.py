"""What crosses between the page, the control loop and its subscribers: commands in, events out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum

import numpy as np

from models.config import SamplerConfig
from models.types import Plan

MAX_CHAINS = 16  # of a descent that somebody looks into
MAX_INSTRUCTION = 500  # characters; LIBERO's longest instruction has 118


class Status(StrEnum):
    """State of the control loop."""

    EMPTY = "empty"  # no scene yet
    LOADING = "loading"
    PAUSED = "paused"
    RUNNING = "running"
    ENDED = "ended"  # see Outcome
    ERROR = "error"


class Outcome(StrEnum):
    """How an episode ended; a crash is an error, never a failed episode."""

    SUCCESS = "success"
    TIMEOUT = "timeout"
    ERROR = "error"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """A LIBERO task at an initial state. `seed` places the fixtures and seeds the sampler.

    `goal`: another task of the suite that is asked for in this scene instead (its instruction and
    its success test); None for the scene's own.
    """

    suite: str = "libero_object"
    task: int = 0
    init: int = 0
    seed: int = 0
    goal: int | None = None


CAMERA_BOUNDS: dict[str, tuple[float, float]] = {
    "orbit_horizontal": (-180.0, 180.0),
    "orbit_vertical": (-90.0, 90.0),
    "distance": (25.0, 400.0),
    "turn_horizontal": (-180.0, 180.0),
    "turn_vertical": (-90.0, 90.0),
    "fov": (10.0, 120.0),
}


@dataclass(frozen=True, slots=True)
class CameraPerturbation:
    """LIBERO-Plus camera move of `agentview`: degrees, and percent of the nominal distance.

    `fov` is the vertical field of view in degrees (LIBERO's nominal: 45).
    Raises ValueError when a value is not finite or outside `CAMERA_BOUNDS`.
    """

    orbit_horizontal: float = 0.0
    orbit_vertical: float = 0.0
    distance: float = 100.0
    turn_horizontal: float = 0.0
    turn_vertical: float = 0.0
    fov: float = 45.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value, (low, high) = getattr(self, f.name), CAMERA_BOUNDS[f.name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"camera: {f.name} must be a number, not {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"camera: {f.name} must lie in [{low:g}, {high:g}], not {value!r}")

    @property
    def nominal(self) -> bool:
        """True when the camera stands where LIBERO puts it."""
        return self == CameraPerturbation()


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture pair for people: JPEG bytes per camera."""

    step: int
    jpegs: dict[str, bytes]
    time: float  # time.time() when rendered


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One control step (20 Hz). `plan` is set only on the step that began with a new plan."""

    step: int
    action: np.ndarray  # float32 [7], as executed
    proprio: np.ndarray  # float32 [8], after the step
    success: bool
    plan: Plan | None = None
    frame: Frame | None = None
    driver: str = "policy"


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation on the trace: what changed before step `step`."""

    step: int
    kind: str  # "instruction" | "camera" | "sampler"
    text: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What the scripted expert would do at the state of a plan, and what the model thinks of it."""

    actions: np.ndarray  # float32 [H, 7], environment scale
    normalized: np.ndarray  # float32 [H, 7], as the model sees them
    energy: float  # E(a_expert, C)
    phase: str  # what it is at, such as "pick milk_1"


@dataclass(frozen=True, slots=True)
class EpisodeEvent:
    """An episode began (`outcome` None) or ended."""

    scene: SceneSpec
    instruction: str
    outcome: Outcome | None = None
    steps: int = 0
    message: str = ""
    versions: dict[str, str] = field(default_factory=dict)


# Commands: the page's requests to the loop, applied between control steps.


@dataclass(frozen=True, slots=True)
class LoadScene:
    scene: SceneSpec


@dataclass(frozen=True, slots=True)
class Run:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    pass


@dataclass(frozen=True, slots=True)
class Advance:
    """Run `steps` control steps, then pause; `chunk` runs to the next plan instead."""

    steps: int = 1
    chunk: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    pass


@dataclass(frozen=True, slots=True)
class SetSpeed:
    """Control steps per second; 0 means as fast as the machine can."""

    hz: float


@dataclass(frozen=True, slots=True)
class SetInstruction:
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("instruction: it is empty; type what the robot should do")
        if len(self.text) > MAX_INSTRUCTION:
            raise ValueError(
                f"instruction: {len(self.text)} characters; at most {MAX_INSTRUCTION} are read"
            )


@dataclass(frozen=True, slots=True)
class SetCamera:
    camera: CameraPerturbation


@dataclass(frozen=True, slots=True)
class SetSampler:
    sampler: SamplerConfig


Command = (
    LoadScene | Run | Pause | Advance | Reset | SetSpeed | SetInstruction | SetCamera | SetSampler
)
