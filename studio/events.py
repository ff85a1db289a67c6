"""What crosses between the page, the control loop and its subscribers: commands in, events out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

import numpy as np

from models.config import SamplerConfig
from models.trajectory import DRIVERS
from models.types import Plan
from studio.checks import check_fields
from studio.guard import GuardSettings
from studio.sequence import Sequence, check_instruction
from studio.teleop import Assists, DriveInput

MAX_CHAINS = 16  # of a descent that somebody looks into


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


CAMERA_BOUNDS: dict[str, tuple[float, float]] = {
    "orbit_horizontal": (-180.0, 180.0),
    "orbit_vertical": (-90.0, 90.0),
    "distance": (25.0, 400.0),
    "turn_horizontal": (-180.0, 180.0),
    "turn_vertical": (-90.0, 90.0),
    "fov": (10.0, 120.0),
}
LIGHT_BOUNDS: dict[str, tuple[float, float]] = {
    "intensity": (0.0, 300.0),
    "azimuth": (-180.0, 180.0),
    "elevation": (-90.0, 90.0),
    "hue": (0.0, 360.0),
    "saturation": (0.0, 100.0),
}
SENSOR_KINDS = ("none", "motion_blur", "gaussian_blur", "zoom_blur", "glass_blur", "fog")
SENSOR_BOUNDS: dict[str, tuple[float, float] | tuple[str, ...]] = {
    "kind": SENSOR_KINDS,
    "severity": (1, 10),
}
ROBOT_BOUNDS: dict[str, tuple[float, float]] = {"offset": (0.0, 1.0), "direction": (1, 500)}
LAYOUTS = ("libero", "swap")


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
        check_fields(self, "camera", CAMERA_BOUNDS)

    @property
    def nominal(self) -> bool:
        """True when the camera stands where LIBERO puts it."""
        return self == CameraPerturbation()


@dataclass(frozen=True, slots=True)
class LightPerturbation:
    """The scene's lamps, changed together (see `studio.sim.light`).

    `intensity`: percent of LIBERO's. `azimuth`, `elevation`: degrees by which the lamps orbit the
    table, in the sense in which the camera does. `hue` (degrees) and `saturation` (percent): the
    colour of a filter before every lamp; at saturation 0 it is clear, and LIBERO's light is white.
    Raises ValueError when a value is not finite or outside `LIGHT_BOUNDS`.
    """

    intensity: float = 100.0
    azimuth: float = 0.0
    elevation: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "light", LIGHT_BOUNDS)

    @property
    def nominal(self) -> bool:
        """True when the light is LIBERO's; a clear filter has no hue."""
        return replace(self, hue=0.0) == LightPerturbation()


@dataclass(frozen=True, slots=True)
class SensorNoise:
    """What the lens and the air do to the picture of `agentview` that the policy gets.

    LIBERO-Plus's five kinds and ten severities (see `studio.sensor`). Raises ValueError for others.
    """

    kind: str = "none"
    severity: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "sensor", SENSOR_BOUNDS)

    @property
    def nominal(self) -> bool:
        """True when the picture stays as it is."""
        return self.kind == "none"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """What may differ from nominal in how a scene is seen."""

    camera: CameraPerturbation = field(default_factory=CameraPerturbation)
    light: LightPerturbation = field(default_factory=LightPerturbation)
    sensor: SensorNoise = field(default_factory=SensorNoise)

    @property
    def nominal(self) -> bool:
        """True when the scene is seen as LIBERO shows it."""
        return self.kind == "none"

    @property
    def kind(self) -> str:
        """What is perturbed: "none", "camera", "camera+light" …"""
        changed = [f.name for f in fields(self) if not getattr(self, f.name).nominal]
        return "+".join(changed) or "none"


@dataclass(frozen=True, slots=True)
class RobotStart:
    """Where the arm starts, as in LIBERO-Plus: its joints moved by a vector of length `offset`.

    `offset` in radians; `direction` numbers LIBERO-Plus's 500 directions in joint space, of which
    it uses 1 - 100 with 0.1 rad, 101 - 200 with 0.2 rad, up to 0.5 rad. Raises ValueError outside
    `ROBOT_BOUNDS`.
    """

    offset: float = 0.0
    direction: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "robot", ROBOT_BOUNDS)

    @property
    def nominal(self) -> bool:
        """True when the arm starts as the initial state has it."""
        return self.offset == 0.0


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """A LIBERO task at an initial state. `seed` places the fixtures and seeds the sampler.

    `goal`: another task of the suite that is asked for in this scene instead (its instruction and
    its success test); None for the scene's own. `robot` moves the arm before the episode begins.
    `layout`: "libero", or "swap", LIBERO-PRO's, in which objects have changed places; it has its
    own initial states. Raises ValueError for another layout.
    """

    suite: str = "libero_object"
    task: int = 0
    init: int = 0
    seed: int = 0
    goal: int | None = None
    robot: RobotStart = field(default_factory=RobotStart)
    layout: str = "libero"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"the layout is one of {', '.join(LAYOUTS)}, not {self.layout!r}")


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
    driver: str = "policy"  # "policy", "human", or "shared" where a person added to the policy's


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation on the trace: what changed before step `step`."""

    step: int
    kind: str  # "instruction" | "camera" | "light" | "sensor" | "sampler" | "driver" | "help"
    text: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What the scripted expert would do at the state of a plan, and what the model thinks of it."""

    actions: np.ndarray  # float32 [H, 7], environment scale
    normalized: np.ndarray  # float32 [H, 7], as the model sees them
    energy: float  # E(a_expert, C)
    phase: str  # what it is at, such as "pick milk_1"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A person's latest chunk beside the policy's own, both for what was to be seen at `step`."""

    step: int
    human: float  # E(a_human, C)
    policy: float  # E(a^(K), C) of the plan that the policy would have made there


@dataclass(frozen=True, slots=True)
class EpisodeEvent:
    """An episode began (`outcome` None) or ended; `perturbation`: how it was seen at that time."""

    scene: SceneSpec
    instruction: str
    outcome: Outcome | None = None
    steps: int = 0
    message: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    perturbation: Perturbation = field(default_factory=Perturbation)


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
        check_instruction(self.text)


@dataclass(frozen=True, slots=True)
class SetCamera:
    camera: CameraPerturbation


@dataclass(frozen=True, slots=True)
class SetLight:
    light: LightPerturbation


@dataclass(frozen=True, slots=True)
class SetSensor:
    sensor: SensorNoise


@dataclass(frozen=True, slots=True)
class SetSampler:
    sampler: SamplerConfig


@dataclass(frozen=True, slots=True)
class SetDriver:
    """Who drives: "policy", "human" or "shared"; switched in mid-episode."""

    driver: str

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ValueError(f"the driver is one of {', '.join(DRIVERS)}, not {self.driver!r}")


@dataclass(frozen=True, slots=True)
class Drive:
    held: DriveInput


@dataclass(frozen=True, slots=True)
class SetAssists:
    assists: Assists


@dataclass(frozen=True, slots=True)
class SetGuard:
    guard: GuardSettings


@dataclass(frozen=True, slots=True)
class Replan:
    """Drop what is left of the chunk and plan anew, this once with `chains` chains; go on."""

    chains: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.chains <= MAX_CHAINS:
            raise ValueError(f"replan: chains must lie in [1, {MAX_CHAINS}], not {self.chains}")


@dataclass(frozen=True, slots=True)
class SetSequence:
    """Instructions to carry out one after the other, from the first on; none ends a sequence."""

    sequence: Sequence


@dataclass(frozen=True, slots=True)
class NextInstruction:
    pass


Command = (
    LoadScene
    | Run
    | Pause
    | Advance
    | Reset
    | SetSpeed
    | SetInstruction
    | SetCamera
    | SetLight
    | SetSensor
    | SetSampler
    | SetDriver
    | Drive
    | SetAssists
    | SetGuard
    | Replan
    | SetSequence
    | NextInstruction
)
