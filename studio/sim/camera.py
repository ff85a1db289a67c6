"""LIBERO-Plus's camera perturbation of `agentview`, as a pure function of a pose.

Poses are a position (m) and a rotation matrix whose columns are the camera's axes in the world
(right, up, backward), as MuJoCo's `cam_xpos` and `cam_xmat` give them.
"""

from __future__ import annotations

import math

import numpy as np

from studio.events import CameraPerturbation
from studio.sim.rotations import rotation_about

PIVOT = np.array([0.0, 0.0, 0.8])  # m, the point that LIBERO-Plus orbits


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotation matrix [3, 3] by `degrees` about the unit vector `axis`."""
    return rotation_about(np.array(axis), math.radians(degrees))


def orbit(horizontal: float, vertical: float) -> np.ndarray:
    """LIBERO-Plus's orbit [3, 3], degrees: about the axis (0, -1, 0), then about world z."""
    return rotation((0, 0, 1), horizontal) @ rotation((0, -1, 0), vertical)


def perturbed_pose(
    pos: np.ndarray, rot: np.ndarray, camera: CameraPerturbation
) -> tuple[np.ndarray, np.ndarray]:
    """The nominal pose (pos [3] m, rot [3, 3]) moved by `camera`, as LIBERO-Plus moves it.

    Orbit about `PIVOT`; scale the offset from it; then turn in place about z and about y, applied
    on the left of the orientation.
    """
    around = orbit(camera.orbit_horizontal, camera.orbit_vertical)
    turn = rotation((0, 1, 0), camera.turn_vertical) @ rotation((0, 0, 1), camera.turn_horizontal)
    moved = PIVOT + around @ (np.asarray(pos, dtype=np.float64) - PIVOT) * (camera.distance / 100.0)
    return moved, turn @ around @ np.asarray(rot, dtype=np.float64)
