"""Pick, place and push: the skills that move free objects."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from studio.sim.expert_motion import OPEN, SLOW, UP, Actions, Arm
from studio.sim.expert_scene import SceneGeometry
from studio.sim.grasp import Grasp, plan_grasp
from studio.sim.rotations import rotation_vector, rotation_z, wrap

HOVER, PREGRASP, LIFT = 0.09, 0.05, 0.06  # m above the grasp
PULL = 0.13  # m along a leaning hand, out from under what made it lean
CLEARANCE = 0.03  # m over whatever lies between
WALLED, DEEP, NARROW = 0.02, 0.05, 0.04  # m, half-heights and half-width of a region
HAND_ROOM = 0.07  # m that the hand keeps from what towers beside it
ATTEMPTS = 4


class Manipulation:
    """Skills on free objects. `retries` counts grasps that had to be repeated."""

    def __init__(self, scene: SceneGeometry, arm: Arm, rng: np.random.Generator) -> None:
        self.scene, self.arm, self.rng = scene, arm, rng
        self.retries = 0
        self.aim = np.zeros(3)  # beside every grasp, m

    def pick(self, name: str) -> Actions:
        """Grasp and lift an object; returns whether it hangs in the gripper."""
        failed: list[Grasp] = []
        for _ in range(ATTEMPTS):
            grasp = yield from self._approach(name, failed)
            height = self.scene.position(name)[2]
            here = self.arm.position
            yield from self.arm.close_fingers(here)
            lift = LIFT if self.arm.back[2] > 0.99 else PULL
            yield from self.arm.move(here + lift * self.arm.back, 0.02, speed=0.6, steps=25)
            if self.scene.position(name)[2] > height + 0.025 and self.scene.gripper_width() > 1e-3:
                return True
            self.retries += 1
            failed.append(grasp)
            yield from self.arm.open_fingers(self.arm.position)
            yield from self.arm.move(self.arm.position + LIFT * UP, 0.02, steps=20)
        return False

    def place(self, name: str, target: str) -> Actions:
        """Put the held object onto (or into) an object or region; False when it was lost."""
        scene, arm = self.scene, self.arm
        spot = self._spot(name, target)
        clear = scene.corridor_height(arm.position, spot.goal, 0.10, name)
        clear = max(clear, spot.support) + CLEARANCE
        if spot.slot is not None:
            self._align(spot.slot)

        def transit() -> np.ndarray:
            """Rise first, then travel, blending the corner."""
            here, height = arm.position, clear + self._hang(name)
            risen = np.clip(1 - (height - here[2]) / 0.06, 0.0, 1.0)
            ahead = (spot.goal - self._carried(name) - here)[:2] * risen
            return np.append(here[:2] + ahead, height + 0.01)

        def lost() -> bool:
            return float(np.linalg.norm(scene.position(name) - arm.position)) > 0.16

        def down(extra: float = 0.0) -> np.ndarray:
            xy = (spot.goal - self._carried(name))[:2]
            return np.append(xy, spot.release + self._hang(name) + extra)

        yield from arm.move(transit, 0.03, steps=120, until=lost)
        if lost():
            self.retries += 1
            return False
        if spot.slot is not None:
            yield from arm.move(lambda: down(0.06), 0.006, steps=60, turn_tolerance=0.05)
        elif not spot.deep:
            yield from arm.move(lambda: down(0.03), 0.015, steps=50)
        speed = 0.7 if spot.deep else SLOW
        landed = partial(self._landed, name, spot)
        yield from arm.move(down, 0.010, speed=speed, steps=30, until=landed)
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

    def _approach(
        self, name: str, failed: Sequence[Grasp] = ()
    ) -> Generator[np.ndarray, None, Grasp]:
        """Travel above the grasp, turn, descend; the fingers end open around the object.

        A repeated grasp is moved a little, so that it does not fail the same way again.
        """
        scene, arm = self.scene, self.arm
        arm.grip = OPEN
        plan = _TrackedGrasp(scene, name, plan_grasp(scene, name, failed))
        plan.offset[:] = self.aim
        plan.offset[:2] += self.rng.uniform(-0.004, 0.004, 2) * len(failed)
        arm.rotation = plan.grasp.rotation
        start = arm.position
        corridor = scene.corridor_height(start, plan.position(), 0.07) + CLEARANCE
        if start[2] < corridor - 0.01:
            yield from arm.move(np.append(start[:2], corridor), 0.02, steps=40)

        def above() -> np.ndarray:
            hover, keep = plan.position(HOVER), min(corridor, arm.position[2])
            return np.append(hover[:2], max(hover[2], keep))

        yield from arm.move(above, 0.035, steps=90)
        plan.refine(plan_grasp(scene, name, failed))
        arm.rotation = plan.grasp.rotation
        yield from arm.move(lambda: plan.position(PREGRASP), 0.016, steps=40, turn_tolerance=0.1)
        yield from arm.move(plan.position, 0.006, speed=SLOW, steps=30)
        return plan.grasp

    def _carried(self, name: str) -> np.ndarray:
        """The object's position relative to the finger site."""
        return self.scene.position(name) - self.arm.position

    def _hang(self, name: str) -> float:
        """How far the object hangs below the finger site."""
        return float(self.arm.position[2] - self.scene.lowest(name))

    def _spot(self, name: str, target: str) -> _Spot:
        """Where and how something is put onto an object or region."""
        scene, owner = self.scene, self.scene.owner(target)
        is_site = scene.is_site(target)
        goal = scene.site_position(target) if is_site else scene.position(target)
        support = float(goal[2])
        if owner is not None:
            points = scene.points(owner)
            near = np.linalg.norm(points[:, :2] - goal[:2], axis=1) < 0.10
            support = float(points[near, 2].max(initial=support))
        if not is_site:
            return _Spot(owner, goal, support, max(goal[2], scene.lowest(target)) + 0.006)
        across, half_height = scene.site_extent(target)
        if half_height < DEEP or owner is None:
            walled = owner is not None and half_height > WALLED
            goal = self._roomy(goal, across, name, walled)
            # Let go of between walls it tips over, were it not near the bottom.
            release = goal[2] + (0.012 - half_height if walled else 0.004)
            return _Spot(owner, goal, support, release)
        slot = across if np.linalg.norm(across) < NARROW else None
        return _Spot(owner, goal, support, support - 0.045, deep=True, slot=slot)

    def _roomy(self, goal: np.ndarray, half: np.ndarray, name: str, walled: bool) -> np.ndarray:
        """The spot of a region nearest its middle where the hand clears what towers beside it.

        Between walls, as of a drawer, the object has to fit there as well.
        """
        points = self.scene.obstacles(name)
        towering = points[points[:, 2] > goal[2] + 0.06, :2]
        steps = np.array([0.0, -0.25, 0.25, -0.5, 0.5, -0.75, 0.75])
        if walled:
            radius = np.ptp(self.scene.points(name)[:, :2], axis=0).max() / 2
            steps *= max(0.0, 1 - radius / np.linalg.norm(half)) / steps.max()
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        spots = goal[:2] + grid @ np.array([half, [-half[1], half[0]]])
        gaps = [np.linalg.norm(towering - s, axis=1).min(initial=HAND_ROOM) for s in spots]
        score = np.minimum(gaps, HAND_ROOM) - 1e-3 * np.linalg.norm(grid, axis=1)
        return np.append(spots[np.argmax(score)], goal[2])

    def _align(self, slot: np.ndarray) -> None:
        """Turn the hand so that its fingers close across the slot."""
        closing = self.arm.rotation[:2, 0]
        turn = np.arctan2(slot[1], slot[0]) - np.arctan2(closing[1], closing[0])
        self.arm.rotation = rotation_z(wrap(turn, np.pi)) @ self.arm.rotation

    def _landed(self, name: str, spot: _Spot) -> bool:
        scene = self.scene
        if spot.deep or spot.owner is None or not scene.touching(name, spot.owner):
            return False
        centred = np.linalg.norm((spot.goal - scene.position(name))[:2]) < 0.02
        return bool(centred and scene.lowest(name) < spot.release + 0.02)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A place for an object: heights are those of its lowest point, metres."""

    owner: str | None  # what it will lie on
    goal: np.ndarray  # float64 [3]
    support: float  # highest point of the owner nearby
    release: float  # where it is let go of
    deep: bool = False  # let go of below a rim, to fall
    slot: np.ndarray | None = None  # half-width [2] of a compartment that only fits one way


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
