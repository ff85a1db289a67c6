"""Motion primitives on the benchmark's own 7-D OSC_POSE actions: servo, move, dwell.

Primitives are generators that yield one action per control step (20 Hz) and read the scene anew
each time, so they correct whatever noise is laid over the actions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from studio.sim.expert_scene import SceneGeometry
from studio.sim.rotations import POINTING_DOWN, rotation_vector, rotation_z

OPEN, CLOSE = -1.0, 1.0  # gripper action
UP = np.array([0, 0, 1.0])
KP = 18.0  # action per metre of error
KI = 1.2  # small commands stall 1-2 cm off the target without an integral term
KP_ROTATION = 1.6  # action per radian
MAX_ROTATION = 0.35  # 0.037 rad per step
MAX_ACCELERATION = 0.25  # change of the translation command per step
FAST, SLOW = 0.9, 0.5  # translation command; 1 moves 13 mm per step

Actions = Generator[np.ndarray, None, bool]
Target = np.ndarray | Callable[[], np.ndarray]


class Arm:
    """The expert's hand: where it should point, whether it grips, how it gets somewhere."""

    def __init__(self, scene: SceneGeometry) -> None:
        self.scene = scene
        self.grip = OPEN
        self.rotation = POINTING_DOWN  # wanted orientation of the finger site
        self._command = np.zeros(3)
        self._integral = np.zeros(3)

    @property
    def position(self) -> np.ndarray:
        """World position [3] of the finger site."""
        return self.scene.gripper_pose()[0]

    @property
    def back(self) -> np.ndarray:
        """Unit vector [3] from the wanted finger tips to the palm: up when pointing down."""
        return -self.rotation[:, 2]

    def point_down(self, yaw: float = 0.0) -> None:
        """Want the gripper vertical, turned by `yaw`."""
        self.rotation = rotation_z(yaw) @ POINTING_DOWN

    def rotation_error(self) -> np.ndarray:
        """Rotation vector [3] from the present to the wanted orientation."""
        return rotation_vector(self.rotation @ self.scene.gripper_pose()[1].T)

    def servo(self, target: np.ndarray, speed: float) -> np.ndarray:
        """One action [7] towards `target`, with limited speed and acceleration."""
        error = np.asarray(target) - self.position
        if np.linalg.norm(error) < 0.03:
            self._integral = np.clip(self._integral + KI * error, -0.3, 0.3)
        else:
            self._integral *= 0.7
        wanted = _limit(error * KP + self._integral, speed)
        self._command = self._command + _limit(wanted - self._command, MAX_ACCELERATION)
        turn = _limit(self.rotation_error() * KP_ROTATION, MAX_ROTATION)
        return np.clip(np.concatenate([self._command, turn, [self.grip]]), -1, 1)

    def move(
        self,
        target: Target,
        tolerance: float = 0.012,
        *,
        speed: float = FAST,
        steps: int = 80,
        turn_tolerance: float | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Actions:
        """Go to a (moving) target; ends within tolerance (m, rad), on `until()`, or after `steps`.

        Returns whether it arrived.
        """
        self._integral = np.zeros(3)
        for _ in range(steps):
            goal = target() if callable(target) else target
            if until is not None and until():
                return True
            near = np.linalg.norm(goal - self.position) < tolerance
            if near and turn_tolerance is not None:
                near = np.linalg.norm(self.rotation_error()) < turn_tolerance
            if near:
                return True
            yield self.servo(goal, speed)
        return False

    def dwell(self, steps: int, position: np.ndarray | None = None) -> Actions:
        """Stay for a number of steps."""
        position = self.position if position is None else position
        for _ in range(steps):
            yield self.servo(position, 0.3)
        return True

    def close_fingers(self, position: np.ndarray) -> Actions:
        """Close until the fingers stop moving (5 to 9 steps)."""
        self.grip = CLOSE
        width = self.scene.gripper_width()
        for step in range(9):
            yield self.servo(position, 0.3)
            width, before = self.scene.gripper_width(), width
            if step >= 4 and before - width < 2e-4:
                return True
        return True

    def open_fingers(self, position: np.ndarray, name: str | None = None) -> Actions:
        """Open; when an object is named, until it is let go of (4 to 12 steps)."""
        self.grip = OPEN
        for step in range(12):
            if step >= 4 and not (name and self.scene.gripper_touches(name)):
                return True
            yield self.servo(position, 0.3)
        return True


def _limit(vector: np.ndarray, length: float) -> np.ndarray:
    norm = float(np.linalg.norm(vector))
    return vector * (length / norm) if norm > length else vector
