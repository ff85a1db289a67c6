"""Rotations of the gripper: matrices [3, 3] and rotation vectors [3], world frame, radians."""

from __future__ import annotations

import numpy as np

# The finger site's frame when the gripper points down and its fingers close along world y.
POINTING_DOWN = np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, -1]])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle of a rotation matrix."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    skew = rotation - rotation.T
    axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    length = np.linalg.norm(axis)
    return axis / length * angle if length > 1e-9 else np.zeros(3)


def rotation_about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation matrix about a unit axis (Rodrigues)."""
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def rotation_z(angle: float) -> np.ndarray:
    """Rotation matrix about the vertical."""
    return rotation_about(np.array([0, 0, 1.0]), angle)


def gripper_rotation(yaw: float, tilt: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """A gripper turned by `yaw` about the vertical; its back leans by `tilt` along the closing
    direction of the fingers and by `lean` across it.
    """
    upright = rotation_about(np.array([1.0, 0, 0]), -tilt) @ rotation_about(
        np.array([0, 1.0, 0]), lean
    )
    return rotation_z(yaw) @ upright @ POINTING_DOWN


def wrap(angle: float, period: float = 2 * np.pi) -> float:
    """The equivalent angle nearest to zero."""
    return float((angle + period / 2) % period - period / 2)
