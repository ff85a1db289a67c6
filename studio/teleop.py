"""Driving by hand: what a person holds down becomes the benchmark's action. Pure, no simulator.

A page sends the *state* of all that is held (`DriveInput`): on every change, and again ten times a
second while anything is held. `Pilot` keeps the newest state for the next control step, lets a tap
between two steps count for one, and takes silence for a hand that has let go: a tab that closes or
a network that fails stops the arm.

Forward, left and up are axes of a frame that the person chooses:

- base: away from the robot, to its left, up.
- effector: the hand's own, equal to the base's while it points down unturned.
- camera: as the picture shows it. Forward is where the picture's upper edge lies on the table, so
  that pushing a stick away pushes into the picture; up stays up.

LIBERO's controller reads an action as a displacement (at most 0.05 m) and a rotation vector (at
most 0.5 rad) a step, both along world axes, which are the base's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from studio.checks import check_fields
from studio.sim.rotations import rotation_about

FRAMES = ("base", "effector", "camera")
AXES = ("x", "y", "z", "roll", "pitch", "yaw")
STALE_S = 0.4  # silence for so long means that nothing is held
REST_STEPS = 20  # the scene goes on for a second after the last key: fingers close, things fall
TURN = 0.25  # rotation at full speed, of the controller's 0.5 rad a step
RADIANS = 0.5  # of a rotation action of 1
PLUMB_RAD = 0.02  # a hand this near to vertical is
OPEN = -1.0

# Where a hand may go, m from where LIBERO has it begin: around its tables, down to their tops.
REACH = np.array([[-0.30, -0.55, -0.28], [0.45, 0.55, 0.35]])

INPUT_BOUNDS: dict[str, tuple] = {
    "number": (0, 2**31),
    **dict.fromkeys((*AXES, "gripper"), (-1.0, 1.0)),
    "speed": (0.05, 1.0),
    "frame": FRAMES,
}
ASSIST_BOUNDS: dict[str, tuple] = {"limit": (0.05, 1.0)}


@dataclass(frozen=True, slots=True)
class DriveInput:
    """All that is held at one moment, numbered by its page.

    Axes in [-1, 1]: x forward, y left, z up, and turns about them. `gripper`: 1 closes, -1 opens,
    0 leaves it. `go` moves nothing: it lets a gated policy go on. `speed`: share of the fastest.
    Raises ValueError outside `INPUT_BOUNDS`.
    """

    number: int = 0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    gripper: float = 0.0
    go: bool = False
    speed: float = 0.5
    frame: str = "base"

    def __post_init__(self) -> None:
        check_fields(self, "drive", INPUT_BOUNDS)

    @property
    def axes(self) -> np.ndarray:
        """float64 [6]: x, y, z, roll, pitch, yaw."""
        return np.array([getattr(self, name) for name in AXES])

    @property
    def moves(self) -> bool:
        """True when the arm or its fingers are asked to move."""
        return bool(self.gripper) or any(getattr(self, name) for name in AXES)


@dataclass(frozen=True, slots=True)
class Assists:
    """Help for the hand; a policy's own actions are left alone.

    `upright` keeps the gripper vertical (it may only turn), `workspace` holds it within `REACH`,
    `limit` caps the speed, `gate`: a shared policy goes on only while a key is held.
    """

    upright: bool = False
    workspace: bool = True
    limit: float = 1.0
    gate: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "assists", ASSIST_BOUNDS)


class Pilot:
    """What a person holds, from one control step to the next."""

    def __init__(self) -> None:
        self.inputs = 0  # changes received, for whoever counts
        self._held = DriveInput()
        self.release()

    def release(self) -> None:
        """Let go of everything."""
        self._held = DriveInput(self._held.number)
        self._since: DriveInput | None = None  # the strongest of what came since the last step
        self._heard = -np.inf

    def receive(self, held: DriveInput, now: float) -> None:
        """The newest state, heard at `now` (s). Repeats carry the number of what they repeat."""
        if held.number != self._held.number:
            self.inputs += 1
        if before := self._since:
            tapped = {
                name: max(getattr(before, name), getattr(held, name), key=abs)
                for name in (*AXES, "gripper")
            }
            self._since = replace(held, **tapped, go=held.go or before.go)
        else:
            self._since = held
        self._held, self._heard = held, now

    def look(self, now: float) -> DriveInput:
        """What counts for the step that begins `now`: what is held, and what was tapped before."""
        holds = self._held.moves or self._held.go  # a tap that is over waits for its step
        if holds and now - self._heard > STALE_S:
            self._since, self._held = None, DriveInput(self._held.number)
        return self._since or self._held

    def stepped(self) -> None:
        """What was tapped has had its step."""
        self._since = None


def frame_axes(
    frame: str, hand: np.ndarray, look: tuple[float, ...], up: tuple[float, ...]
) -> np.ndarray:
    """World directions [3, 3] of forward, left and up (columns) in `frame`.

    hand: rotation matrix of the end effector, whose z axis points out of the gripper.
    look, up: of the camera, unit vectors.
    """
    if frame == "effector":
        return hand @ np.diag([1.0, -1.0, -1.0])
    if frame == "base":
        return np.eye(3)
    # The two agree on the table's plane, whether the camera looks along it or straight down.
    forward = np.add(look, up) * (1, 1, 0)
    forward /= np.linalg.norm(forward) or 1.0
    return np.stack([forward, np.cross((0, 0, 1), forward), (0, 0, 1)], axis=1)


def hand_rotation(proprio: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of the end effector from proprioception [8]."""
    vector = np.asarray(proprio[3:6], float)
    angle = np.linalg.norm(vector)
    return rotation_about(vector / angle, angle) if angle > 0 else np.eye(3)


def arm_action(
    held: DriveInput, proprio: np.ndarray, axes: np.ndarray, home: np.ndarray, assists: Assists
) -> np.ndarray:
    """The arm's part [6] of the action that `held` asks for, in the environment's scale.

    proprio [8]: where the hand is; axes: see `frame_axes`; home [3]: the middle of `REACH`, m. A
    hand outside of it, as a perturbed start may have put it, only gets no further out.
    """
    speed = min(held.speed, assists.limit)
    move = axes @ _shortened(held.axes[:3]) * speed
    turn = axes @ _shortened(held.axes[3:]) * speed * TURN
    if assists.workspace:
        low, high = REACH + home
        place = np.asarray(proprio[:3], float)
        move[((place <= low) & (move < 0)) | ((place >= high) & (move > 0))] = 0.0
    if assists.upright:
        turn = np.array([0, 0, turn[2]]) + plumb(hand_rotation(proprio))
    return np.concatenate([move, turn])


def plumb(hand: np.ndarray) -> np.ndarray:
    """The rotation action [3] that turns the hand's z axis back down, a bit a step."""
    out, down = hand[:, 2], np.array([0, 0, -1.0])
    axis = np.cross(out, down)
    angle = np.arctan2(np.linalg.norm(axis), out @ down)
    if angle < PLUMB_RAD:
        return np.zeros(3)
    if not axis.any():
        axis = hand[:, 0]  # upside down: any way round will do
    return axis / np.linalg.norm(axis) * min(angle / RADIANS, TURN)


def _shortened(vector: np.ndarray) -> np.ndarray:
    """At most of length 1: two keys at once are not faster than one."""
    return vector / max(1.0, np.linalg.norm(vector))
