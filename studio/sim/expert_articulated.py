"""Open, close, turn on: the skills that move a fixture's joint."""

from __future__ import annotations

import numpy as np

from studio.sim.expert_motion import CLOSE, OPEN, SLOW, UP, Actions, Arm
from studio.sim.expert_scene import Joint, SceneGeometry
from studio.sim.rotations import POINTING_DOWN, rotation_about, rotation_z, wrap

# How far a hand leans back from pointing down, the best first: to grip a handle, to push.
PULL_TILTS, PUSH_TILTS = np.deg2rad([75.0, 60.0, 45.0]), np.deg2rad([45.0, 30.0, 15.0])
KNOB_RADIUS = 0.01  # m from a knob's axis to where its bar is gripped


class Articulation:
    """Skills on drawers, doors and knobs."""

    def __init__(self, scene: SceneGeometry, arm: Arm) -> None:
        self.scene, self.arm = scene, arm

    def open(self, joint: Joint) -> Actions:
        """Pull a drawer open by its handle."""
        scene, arm = self.scene, self.arm
        outward = joint.axis * joint.opening_sign
        handle = self._handle(joint, outward)
        approach = self._tilt(outward, handle, PULL_TILTS)
        arm.grip = OPEN
        start, before = arm.position, handle - approach * 0.11
        via = np.append((start + before)[:2] / 2 + outward[:2] * 0.05, max(before[2], start[2]))
        yield from arm.move(via, 0.05, steps=60)
        yield from arm.move(before, 0.02, steps=70, turn_tolerance=0.15)
        yield from arm.move(before + approach * 0.05, 0.012, steps=40, turn_tolerance=0.10)
        yield from arm.move(handle + approach * 0.004, 0.005, speed=SLOW, steps=50)
        here = arm.position
        yield from arm.close_fingers(here)
        travel = max(abs(v) for v in joint.open_range)
        yield from arm.move(
            here + outward * (travel + 0.01),
            0.008,
            speed=0.7,
            steps=60,
            until=lambda: abs(scene.joint_value(joint)) > travel - 0.004,
        )
        here = arm.position
        yield from arm.open_fingers(here)
        yield from arm.move(here - approach * 0.08 + 0.02 * UP, 0.03, steps=25)
        arm.point_down()
        return (yield from arm.move(arm.position + 0.12 * UP, 0.03, steps=25))

    def close(self, joint: Joint) -> Actions:
        """Push a drawer or door shut with the closed gripper."""
        scene, arm = self.scene, self.arm
        arm.grip = CLOSE
        point, heading = self._push(joint)
        self._tilt(-heading, point, PUSH_TILTS, across=True)
        before = point - 0.08 * heading + 0.01 * UP
        via = np.append(before[:2] - heading[:2] * 0.05, max(arm.position[2], before[2] + 0.12))
        yield from arm.move(via, 0.04, steps=80)
        yield from arm.move(before, 0.02, steps=60, turn_tolerance=0.2)

        def ahead() -> np.ndarray:
            point, heading = self._push(joint)
            return point + 0.10 * heading

        def shut() -> bool:
            return joint.is_closed(scene.joint_value(joint))

        yield from arm.move(ahead, 0.005, speed=0.7, steps=90, until=shut)
        heading = self._push(joint)[1]
        yield from arm.move(arm.position - 0.08 * heading, 0.03, steps=25)
        arm.point_down()
        return True

    def turn_on(self, joint: Joint) -> Actions:
        """Grip a knob's bar and turn it with the wrist."""
        scene, arm = self.scene, self.arm
        points = scene.body_points(joint.body)
        top = points[:, 2].max()
        bar = points[points[:, 2] > top - 0.03, :2]
        yaws = np.deg2rad(np.arange(-90, 90, 3))
        yaw = float(min(yaws, key=lambda a: np.ptp(bar @ [-np.sin(a), np.cos(a)])))
        arm.grip = OPEN
        arm.point_down(yaw)
        centre = scene.data.xpos[joint.body].copy()
        arm_of_bar = KNOB_RADIUS * np.array([np.cos(yaw), np.sin(yaw), 0])
        grip = centre + arm_of_bar
        grip[2] = max(top - 0.022, points[:, 2].min() + 0.02)
        yield from arm.move(grip + 0.10 * UP, 0.03, steps=80)
        yield from arm.move(grip + 0.05 * UP, 0.012, steps=40, turn_tolerance=0.1)
        yield from arm.move(grip, 0.007, speed=SLOW, steps=40)
        here = arm.position
        yield from arm.close_fingers(here)
        wanted = joint.on_range[0] + 0.25
        for _ in range(50):
            value = scene.joint_value(joint)
            if value > wanted:
                break
            turn = max(value, 0.0) + 0.35
            arm.point_down(yaw + turn)
            yield arm.servo(here + rotation_z(turn) @ arm_of_bar - arm_of_bar, 0.5)
        arm.point_down(yaw + scene.joint_value(joint))
        here = arm.position
        yield from arm.open_fingers(here)
        return (yield from arm.move(here + 0.10 * UP, 0.03, steps=25))

    # Parts -------------------------------------------------------------------------------------

    def _push(self, joint: Joint) -> tuple[np.ndarray, np.ndarray]:
        """Where to push [3] and in which direction [3] so that the joint closes."""
        if joint.slides:
            outward = joint.axis * joint.opening_sign
            return self._handle(joint, outward), -outward
        points = self.scene.body_points(joint.body)
        arms = points - joint.anchor
        arms -= np.outer(arms @ joint.axis, joint.axis)
        reach = np.linalg.norm(arms, axis=1)
        edge = points[reach > reach.max() - 0.03]
        point = (edge.max(0) + edge.min(0)) / 2
        heading = -joint.opening_sign * np.cross(joint.axis, point - joint.anchor)
        return point, heading / np.linalg.norm(heading)

    def _handle(self, joint: Joint, outward: np.ndarray) -> np.ndarray:
        """Centre of what sticks out most along `outward` from the joint's body."""
        points = self.scene.body_points(joint.body)
        reach = points @ outward
        tip = points[reach > reach.max() - 0.016]
        return (tip.max(0) + tip.min(0)) / 2

    def _tilt(
        self, outward: np.ndarray, position: np.ndarray, tilts: np.ndarray, across: bool = False
    ) -> np.ndarray:
        """Pitch the hand so that it points against `outward`; returns where it points.

        As far as the arm can reach `position` that way. The fingers then close in the vertical
        plane that contains `outward`, or across it: the broad side of the hand then meets nothing
        that sticks out above.
        """
        yaw = wrap(np.arctan2(outward[1], outward[0]) - (0 if across else np.pi / 2), np.pi)
        axis = np.cross([0, 0, 1.0], outward)  # turns -z towards -outward
        for tilt in tilts:
            pitch = rotation_about(axis / np.linalg.norm(axis), tilt)
            for flip in (0.0, np.pi):
                self.arm.rotation = pitch @ rotation_z(wrap(yaw + flip)) @ POINTING_DOWN
                if self.scene.reachable(position, self.arm.rotation):
                    return -self.arm.back
        return -self.arm.back
