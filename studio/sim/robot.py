"""LIBERO-Plus's perturbed robot starts: the arm's seven joints moved along a random direction.

LIBERO-Plus writes the moved joints into the robot's class, where LIBERO's initial states, which
hold joints too, overwrite them when they are set. Here the joints move after that, from those of
the initial state, so that the arm really starts elsewhere.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from studio.events import ROBOT_BOUNDS, RobotStart

JOINTS = 7
_SEED = 42  # LIBERO-Plus's own


@cache
def _directions() -> np.ndarray:
    """LIBERO-Plus's unit vectors in joint space, float64 [500, 7]: a seeded generator's draws."""
    count = int(ROBOT_BOUNDS["direction"][1])
    drawn = np.random.RandomState(_SEED).randn(count, JOINTS)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def joint_offset(start: RobotStart) -> np.ndarray:
    """Radians [7] by which the joints are moved."""
    return start.offset * _directions()[start.direction - 1]


def move_arm(env: Any, start: RobotStart) -> None:
    """Put the arm of a LIBERO environment there, at rest and within the limits of its joints.

    The controller's null space follows, which LIBERO-Plus perturbs as well: it would pull the
    elbow back.
    """
    robot, sim = env.robots[0], env.sim
    low, high = sim.model.jnt_range[robot._ref_joint_indexes].T
    joints = sim.data.qpos[robot._ref_joint_pos_indexes] + joint_offset(start)
    sim.data.qpos[robot._ref_joint_pos_indexes] = joints = np.clip(joints, low, high)
    sim.data.qvel[robot._ref_joint_vel_indexes] = 0.0
    sim.forward()
    robot.controller.update_initial_joints(joints)
