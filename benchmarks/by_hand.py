"""A scripted person solves tasks with the keyboard: `python -m benchmarks.by_hand [--tasks 0,4,5]`.

It drives the real page in Chromium through key events alone. It knows where the object, a grasp of
it and the basket are when the episode begins (from a simulator of its own, at the same initial
state), and then only what the page shows: where the hand is, and the outcome.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as GaveUp

from benchmarks.teleop import STATE, driven_page
from models.ranges import parse_range
from studio.events import SceneSpec
from studio.sim.rotations import rotation_about, wrap

SUITE = "libero_object"
HOVER, CARRY, DROP = 0.12, 0.24, 0.17  # m above the grasp, the grasp again, and the basket's site
NEAR, CLOSE_ENOUGH, TURNED = 0.035, 0.007, 0.06  # m, m, rad
BRISK, CAREFUL = 0.9, 0.4  # speed; a smaller one stalls before the target
LOOK_S, TAP_S, SETTLE_S = 0.03, 0.05, 0.25
PATIENCE_S = 90.0  # for one movement
KEYS = ("ws", "ad", "eq")  # forth and back along x, y, z


@dataclass(frozen=True, slots=True)
class Errand:
    """What to fetch and where to put it: positions [3] in m, the hand's turn in rad."""

    grasp: np.ndarray
    yaw: float
    basket: np.ndarray


def errand(scene: SceneSpec) -> Errand:
    """Look at the scene's beginning in a simulator of one's own."""
    from studio.sim.expert_scene import SceneGeometry
    from studio.sim.grasp import plan_grasp
    from studio.sim.libero_sim import LiberoSim

    sim = LiberoSim()
    sim.load(scene)
    geometry = SceneGeometry(sim.env)
    ((_, name, target),) = sim.env.parsed_problem["goal_state"]
    grasp, basket = plan_grasp(geometry, name), geometry.site_position(target)
    sim.close()
    return Errand(grasp.position, grasp.yaw, basket)


class Person:
    """Looks at the page and presses keys."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._held: set[str] = set()

    def see(self, field: str) -> object:
        """What the page knows of the scene."""
        return self._page.evaluate(f"{STATE}.{field}")

    def hold(self, keys: set[str]) -> None:
        """Hold these keys and no others."""
        for key in self._held - keys:
            self._page.keyboard.up(key)
        for key in keys - self._held:
            self._page.keyboard.down(key)
        self._held = keys

    def tap(self, keys: set[str]) -> None:
        """A short press; then wait for what comes of it."""
        self.hold(keys)
        time.sleep(TAP_S)
        self.hold(set())
        time.sleep(SETTLE_S)

    def speed(self, wanted: float) -> None:
        """By the keys for faster and slower."""
        shown = float(self._page.input_value("#live-drive-speed"))
        for _ in range(round(abs(wanted - shown) / 0.1)):
            self._page.keyboard.press("x" if wanted > shown else "z")

    def go(self, target: np.ndarray, yaw: float | None = None) -> None:
        """Bring the hand to `target` [3], turned by `yaw`. Raises TimeoutError."""
        deadline, pace = time.monotonic() + PATIENCE_S, 0.0
        while time.monotonic() < deadline:
            hand = np.array(self.see("hand"))
            error = target - hand[:3]
            turn = 0.0 if yaw is None else wrap(yaw - _yaw(hand[3:]), np.pi)
            keys = {KEYS[i][int(error[i] < 0)] for i in range(3) if abs(error[i]) > CLOSE_ENOUGH}
            if abs(turn) > TURNED:
                keys.add("u" if turn > 0 else "o")
            if not keys:
                return self.hold(set())
            near = np.abs(error).max() < NEAR
            if pace != (pace := CAREFUL if near else BRISK):
                self.hold(set())
                self.speed(pace)
            if near:
                self.tap(keys)
            else:
                self.hold({key for key in keys if key not in _fine(error)})
                time.sleep(LOOK_S)
        raise TimeoutError(f"the hand is not at {target.round(3)}")

    def grip(self, key: str) -> None:
        """Close or open, and give the fingers their time."""
        self.tap({key})
        time.sleep(1.2)


def _fine(error: np.ndarray) -> set[str]:
    """The keys of directions that are left to taps."""
    return {key for i in range(3) if abs(error[i]) < NEAR / 2 for key in KEYS[i]}


def _yaw(vector: np.ndarray) -> float:
    """The hand's turn about the vertical, from its axis-angle."""
    angle = float(np.linalg.norm(vector))
    rotation = rotation_about(vector / angle, angle)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def solve(page: Page, scene: SceneSpec) -> tuple[str, int, float]:
    """One task by hand: its outcome, control steps and seconds."""
    todo, person, up = errand(scene), Person(page), np.array([0, 0, 1.0])
    episode = int(person.see("episode"))
    page.evaluate("scene => studio.drive(scene)", dataclasses.asdict(scene))
    page.wait_for_function(f"{STATE}.episode > {episode} && {STATE}.resting", timeout=120_000)
    began = time.monotonic()
    try:
        person.go(todo.grasp + HOVER * up, todo.yaw)
        person.go(todo.grasp)
        person.grip("f")
        person.go(todo.grasp + CARRY * up)
        person.go(todo.basket + CARRY * up)
        person.go(todo.basket + DROP * up)
        person.grip("v")
        page.wait_for_function(f"{STATE}.status === 'ended'", timeout=5000)
    except (TimeoutError, GaveUp):
        person.hold(set())
    outcome = str(person.see("outcome") or "not done")
    return outcome, int(person.see("step")), time.monotonic() - began


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="0,4,5")
    parser.add_argument("--init", type=int, default=40)
    args = parser.parse_args()
    print("| task | outcome | steps | time |\n| --- | --- | --- | --- |")
    with driven_page() as (_, page):
        page.click("#live-frame [data-value=base]")
        for task in parse_range(args.tasks):
            outcome, steps, seconds = solve(page, SceneSpec(SUITE, task, args.init, 0))
            print(f"| {task} | {outcome} | {steps} | {seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
