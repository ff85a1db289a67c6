"""Pick, place and push: the skills that move free objects."""

from __future__ import annotations

import numpy as np

from studio.sim.expert_motion import OPEN, SLOW, UP, Actions, Arm
from studio.sim.expert_scene import SceneGeometry
from studio.sim.grasp import Grasp, plan_grasp
from studio.sim.rotations import rotation_vector

HOVER, PREGRASP, LIFT = 0.09, 0.05, 0.06  # m above the grasp
PULL = 0.13  # m along a leaning hand, out from under what made it lean
CLEARANCE = 0.03  # m over whatever lies between
ATTEMPTS = 4


class Manipulation:
    """Skills on free objects. `retries` counts grasps that had to be repeated."""

    def __init__(self, scene: SceneGeometry, arm: Arm, rng: np.random.Generator) -> None:
        self.scene, self.arm, self.rng = scene, arm, rng
        self.retries = 0

    def pick(self, name: str) -> Actions:
        """Grasp and lift an object; returns whether it hangs in the gripper."""
        for attempt in range(ATTEMPTS):
            yield from self._approach(name, shift=0.004 * attempt)
            height = self.scene.position(name)[2]
            here = self.arm.position
            yield from self.arm.close_fingers(here)
            lift = LIFT if self.arm.back[2] > 0.99 else PULL
            yield from self.arm.move(here + lift * self.arm.back, 0.02, speed=0.6, steps=25)
            if self.scene.position(name)[2] > height + 0.025 and self.scene.gripper_width() > 1e-3:
                return True
            self.retries += 1
            yield from self.arm.open_fingers(self.arm.position)
            yield from self.arm.move(self.arm.position + LIFT * UP, 0.02, steps=20)
        return False

    def place(self, name: str, target: str) -> Actions:
        """Put the held object onto (or into) an object or region; False when it was lost."""
        scene, arm = self.scene, self.arm
        goal = scene.site_position(target) if scene.is_site(target) else scene.position(target)
        deep = "basket" in target
        support = self._support_height(target, goal)
        clear = max(scene.corridor_height(arm.position, goal, 0.10, name), support) + CLEARANCE

        def transit() -> np.ndarray:
            """Rise first, then travel, blending the corner."""
            here, height = arm.position, clear + self._hang(name)
            risen = np.clip(1 - (height - here[2]) / 0.06, 0.0, 1.0)
            ahead = (goal - self._carried(name) - here)[:2] * risen
            return np.append(here[:2] + ahead, height + 0.01)

        def lost() -> bool:
            return float(np.linalg.norm(scene.position(name) - arm.position)) > 0.16

        yield from arm.move(transit, 0.03, steps=120, until=lost)
        if lost():
            self.retries += 1
            return False
        release = support - 0.045 if deep else self._release_height(target, goal)

        def down(extra: float = 0.0) -> np.ndarray:
            xy = (goal - self._carried(name))[:2]
            return np.append(xy, release + self._hang(name) + extra)

        if not deep:
            yield from arm.move(lambda: down(0.03), 0.015, steps=50)
        yield from arm.move(
            down,
            0.010,
            speed=0.7 if deep else SLOW,
            steps=30,
            until=lambda: not deep and self._landed(name, target, goal, release + 0.02),
        )
        return (yield from self.release(name))

    def release(self, name: str) -> Actions:
        """Let go of the object and draw back."""
        here = self.arm.position
        yield from self.arm.open_fingers(here, name)
        return (yield from self.arm.move(here + 0.08 * self.arm.back, 0.03, steps=20))

    def push(self, name: str, target: str) -> Actions:
        """Slide a flat dish along its support to a region, held at its rim."""
        scene, arm = self.scene, self.arm
        goal = scene.site_position(target)
        yield from self._approach(name)
        here = arm.position
        yield from arm.close_fingers(here)
        yield from arm.dwell(4, here)  # a thin rim slips out of a weak grip

        def slide() -> np.ndarray:
            return np.append((arm.position + goal - scene.position(name))[:2], here[2] + 0.004)

        yield from arm.move(slide, 0.008, speed=0.6, steps=80)
        return (yield from self.release(name))

    # Parts -------------------------------------------------------------------------------------

    def _approach(self, name: str, shift: float = 0.0) -> Actions:
        """Travel above the grasp, turn, descend; the fingers end open around the object.

        `shift` (m) moves a repeated grasp a little, so that it does not fail the same way again.
        """
        scene, arm = self.scene, self.arm
        arm.grip = OPEN
        plan = _TrackedGrasp(scene, name, plan_grasp(scene, name))
        plan.offset[:2] = self.rng.uniform(-shift, shift, 2)
        arm.rotation = plan.grasp.rotation
        start = arm.position
        corridor = scene.corridor_height(start, plan.position(), 0.07) + CLEARANCE
        if start[2] < corridor - 0.01:
            yield from arm.move(np.append(start[:2], corridor), 0.02, steps=40)

        def above() -> np.ndarray:
            hover, keep = plan.position(HOVER), min(corridor, arm.position[2])
            return np.append(hover[:2], max(hover[2], keep))

        yield from arm.move(above, 0.035, steps=90)
        plan.refine(plan_grasp(scene, name))
        arm.rotation = plan.grasp.rotation
        yield from arm.move(lambda: plan.position(PREGRASP), 0.016, steps=40, turn_tolerance=0.1)
        yield from arm.move(plan.position, 0.006, speed=SLOW, steps=30)
        return True

    def _carried(self, name: str) -> np.ndarray:
        """The object's position relative to the finger site."""
        return self.scene.position(name) - self.arm.position

    def _hang(self, name: str) -> float:
        """How far the object hangs below the finger site."""
        return float(self.arm.position[2] - self.scene.lowest(name))

    def _support_height(self, target: str, goal: np.ndarray) -> float:
        """Highest point of what the target belongs to, within 10 cm of the goal."""
        owner = self.scene.owner(target)
        if owner is None:
            return float(goal[2])
        points = self.scene.points(owner)
        near = np.linalg.norm(points[:, :2] - goal[:2], axis=1) < 0.10
        return float(points[near, 2].max(initial=goal[2]))

    def _release_height(self, target: str, goal: np.ndarray) -> float:
        """Height of the object's lowest point when it is let go of."""
        if self.scene.is_site(target):
            return float(goal[2]) + 0.004
        return max(self.scene.position(target)[2], self.scene.lowest(target)) + 0.006

    def _landed(self, name: str, target: str, goal: np.ndarray, height: float) -> bool:
        owner, scene = self.scene.owner(target), self.scene
        if owner is None or not scene.touching(name, owner):
            return False
        centred = np.linalg.norm((goal - scene.position(name))[:2]) < 0.02
        return bool(centred and scene.lowest(name) < height)


class _TrackedGrasp:
    """A planned grasp that follows its object when that moves or turns."""

    def __init__(self, scene: SceneGeometry, name: str, grasp: Grasp) -> None:
        self._scene, self._name = scene, name
        self.offset = np.zeros(3)
        self._anchor(grasp)

    def _anchor(self, grasp: Grasp) -> None:
        self.grasp = grasp
        self._local = self._scene.rotation(self._name).T @ (
            grasp.position - self._scene.position(self._name)
        )

    def position(self, above: float = 0.0) -> np.ndarray:
        """Where the finger site should be now, or that much back along the approach."""
        rotation, origin = self._scene.rotation(self._name), self._scene.position(self._name)
        back = -self.grasp.rotation[:, 2]
        return origin + rotation @ self._local + self.offset + above * back

    def refine(self, grasp: Grasp) -> None:
        """Take a newer plan if it is the same grasp, seen better."""
        turned = np.linalg.norm(rotation_vector(grasp.rotation @ self.grasp.rotation.T))
        if turned < 0.6 and np.linalg.norm(grasp.position - self.position()) < 0.05:
            self._anchor(grasp)
