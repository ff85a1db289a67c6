"""Grasps from above planned from collision geometry: across the narrowest width, or at the rim.

A grasp is a position of the finger site and a yaw; yaw 0 closes the fingers along world y. Every
candidate gets a cost (collisions of fingers and hand, turning, reach); the cheapest is taken, so
that nearby scenes get the same grasp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.sim.expert_scene import SceneGeometry
from studio.sim.rotations import gripper_rotation, wrap

FINGER_DEPTH = 0.034  # m below the top of an object; deeper, the palm touches
KNOB_DEPTH = 0.012  # m, for a knob on top of what is too wide itself
MAX_WIDTH = 0.072  # m; the fingers open to 0.08
TILT, LEAN = np.deg2rad(35), np.deg2rad(30)  # of a hand that reaches under something
RIM_INSET = 0.006  # m inside the outer radius
BASE_XY = np.array([-0.6, 0.0])  # the robot's base
HOLLOW = (  # dishes whose convex outline hides the opening: gripped at the rim
    "akita_black_bowl",
    "plate",
    "glazed",
    "white_bowl",
    "porcelain_mug",
    "red_coffee_mug",
    "white_yellow_mug",
)


@dataclass(frozen=True, slots=True)
class Grasp:
    """Where the finger site goes and how the hand is turned about the vertical."""

    position: np.ndarray  # float64 [3], m
    yaw: float  # rad, within [-pi/2, pi/2]
    tilt: float = 0.0  # rad, the hand's back leans along the closing direction
    lean: float = 0.0  # rad, and across it
    cost: float = 0.0

    @property
    def rotation(self) -> np.ndarray:
        """Orientation [3, 3] of the finger site."""
        return gripper_rotation(self.yaw, self.tilt, self.lean)


def closing_direction(yaw: float) -> np.ndarray:
    """Horizontal unit vector [2] along which the fingers close at this yaw."""
    return np.array([-np.sin(yaw), np.cos(yaw)])


def plan_grasp(scene: SceneGeometry, name: str, failed: Sequence[Grasp] = ()) -> Grasp:
    """The cheapest grasp of the named object that the arm can reach, unlike those that failed."""
    obstacles = scene.obstacles(name)
    ranked = sorted(
        (_costed(g, obstacles, failed) for g in _candidates(scene, name)), key=lambda g: g.cost
    )
    reachable = (g for g in ranked if scene.reachable(g.position, g.rotation))
    return next(reachable, ranked[0])


def _costed(grasp: Grasp, obstacles: np.ndarray, failed: Sequence[Grasp]) -> Grasp:
    """The grasp with what collisions, turning and reaching add to its cost."""
    cost = grasp.cost + _collision_cost(grasp, obstacles) + 0.35 * abs(grasp.yaw)
    cost += 2.0 * any(np.linalg.norm(grasp.position - f.position) < 0.025 for f in failed)
    return replace(grasp, cost=cost + 0.15 * float(np.linalg.norm(grasp.position[:2] - BASE_XY)))


def _candidates(scene: SceneGeometry, name: str) -> Iterator[Grasp]:
    points = scene.points(name)
    height = float(np.ptp(points[:, 2]))
    if height > 0.03 and name.startswith(HOLLOW):
        yield from _rim_grasps(scene, name, points)
        return
    deep = tuple(_grasps_across(*_finger_slab(points, height, FINGER_DEPTH)))
    if deep:
        yield from deep
        return
    knob = tuple(_grasps_across(*_finger_slab(points, height, KNOB_DEPTH)))
    yield from knob or _rim_grasps(scene, name, points)


def _grasps_across(slab: np.ndarray, z: float) -> Iterator[Grasp]:
    """Grasps of a slice of an object across its middle; none where it is too wide."""
    yaws = np.deg2rad(np.arange(-90, 90, 5.0))
    spans = [slab[:, :2] @ closing_direction(yaw) for yaw in yaws]
    narrowest = min(float(np.ptp(span)) for span in spans)
    if narrowest > 0.068:
        return
    for yaw, span in zip(yaws, spans, strict=True):
        width = float(np.ptp(span))
        if width <= MAX_WIDTH:
            u = closing_direction(yaw)
            v = np.array([u[1], -u[0]])
            xy = u * _middle(span) + v * _middle(slab[:, :2] @ v)
            yield Grasp(np.append(xy, z), float(yaw), cost=25 * (width - narrowest))


def _finger_slab(points: np.ndarray, height: float, depth: float) -> tuple[np.ndarray, float]:
    """The slice that fingers `depth` below the top would touch, and the height of their site."""
    bottom, top = points[:, 2].min(), points[:, 2].max()
    if height <= 0.03:
        return points, bottom + max(0.5 * height, 0.010)
    z = max(bottom + min(0.5 * height, 0.020), top - depth)
    near = points[np.abs(points[:, 2] - z) < min(0.02, depth / 2)]
    return (near if height > 0.06 and len(near) >= 6 else points), z


def _rim_grasps(scene: SceneGeometry, name: str, points: np.ndarray) -> Iterator[Grasp]:
    """Fingers either side of the wall, around the rim circle of a (perhaps tilted) dish."""
    origin, rotation = scene.position(name), scene.rotation(name)
    local = (points - origin) @ rotation
    axis = int(np.argmax(np.abs(rotation[2])))  # the dish's own axis that points up
    sign = np.sign(rotation[2, axis])
    heights = local[:, axis] * sign
    depth = float(np.ptp(heights))
    rim = local[heights > heights.max() - 0.25 * depth] if depth > 0.03 else local
    centre = (rim.max(0) + rim.min(0)) / 2
    centre[axis] = heights.max() * sign
    for angle in np.deg2rad(np.arange(0, 360, 15.0)):
        outward = rotation.T @ np.array([np.cos(angle), np.sin(angle), 0.0])
        outward[axis] = 0
        outward /= np.linalg.norm(outward)
        radius = ((rim - centre) @ outward).max() - RIM_INSET
        position = origin + rotation @ (centre + outward * radius)
        position[2] -= 0.020 if depth > 0.03 else 0.006
        u = rotation @ outward
        yaw = wrap(np.arctan2(u[1], u[0]) - np.pi / 2, np.pi)
        cost = 2.0 * abs(float(u[2]))
        yield Grasp(position, yaw, cost=cost)
        if depth > 0.03:
            outwards = float(np.sign(u[:2] @ closing_direction(yaw)))
            yield Grasp(position, yaw, TILT * outwards, cost=cost + 1.0)
            higher = position + np.array([0, 0, 0.008])  # else the palm meets the rim beside it
            yield Grasp(higher, yaw, lean=LEAN, cost=cost + 1.5)
            yield Grasp(higher, yaw, lean=-LEAN, cost=cost + 1.5)


def _collision_cost(grasp: Grasp, obstacles: np.ndarray) -> float:
    in_hand = (obstacles - grasp.position) @ grasp.rotation  # closing along x, pointing along z
    along, across, above = np.abs(in_hand[:, 0]), np.abs(in_hand[:, 1]), -in_hand[:, 2]
    fingers = (np.abs(along - 0.045) < 0.017) & (across < 0.016) & (above > -0.014)
    hand = (along < 0.115) & (across < 0.04) & (above > 0.027)
    near = (along < 0.075) & (across < 0.03) & (above > -0.012)
    cost = 2.0 + 10 * (above[fingers].max() + 0.014) if fingers.any() else 0.0
    if hand.any():  # an edge that the palm may brush, or something that hangs over
        cost += 1.5 if above[hand].max() < 0.06 else 3.0
    return float(cost + 0.3 * near.any())


def _middle(values: np.ndarray) -> float:
    return float(values.max() + values.min()) / 2
