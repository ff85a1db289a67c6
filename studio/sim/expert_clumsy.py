"""An expert that misses: it leads to where a policy gets to whose grasp has failed.

A demonstration without a second grasp never shows empty fingers, so what is learnt from such
demonstrations alone carries nothing to the goal as if it held something. Here the fingers close
beside the object or above it and the hand goes on; the real expert then takes over.
"""

from __future__ import annotations

import numpy as np

from studio.sim.expert import Expert
from studio.sim.expert_midway import successor
from studio.sim.expert_motion import UP, Actions
from studio.sim.expert_skills import LIFT, Manipulation
from studio.sim.libero_sim import SETTLE_ACTION, LiberoSim

BESIDE, ABOVE = (0.02, 0.05), (0.01, 0.05)  # m off the grasp
OVER_GOAL = 0.12  # m above the goal where the empty hand waits
ONWARD = 60  # control steps after the fingers have closed, at most


class ClumsyExpert(Expert):
    """The expert with a hand that misses; `missed` once its fingers have closed."""

    def __init__(self, sim: LiberoSim, rng: np.random.Generator) -> None:
        """Raises ValueError as `Expert` does."""
        super().__init__(sim, rng)
        self._manipulation = _Missing(self._scene, self._arm, rng)

    @property
    def missed(self) -> bool:
        """Whether the fingers have closed beside what they were to grasp."""
        return self._manipulation.missed


class _Missing(Manipulation):
    """Skills that close beside the object and do not notice."""

    missed = False

    def pick(self, name: str) -> Actions:
        angle = self.rng.uniform(-np.pi, np.pi)
        self.aim = np.append(
            self.rng.uniform(*BESIDE) * np.array([np.cos(angle), np.sin(angle)]),
            self.rng.uniform(*ABOVE),
        )
        yield from self._approach(name)
        yield from self.arm.close_fingers(self.arm.position)
        self.missed = True
        above = self.arm.position + LIFT * self.arm.back
        yield from self.arm.move(above, 0.02, speed=0.6, steps=25)
        return True

    def place(self, name: str, target: str) -> Actions:
        goal = self._spot(name, target).goal
        height = max(self.arm.position[2], goal[2] + OVER_GOAL)
        yield from self.arm.move(np.append(goal[:2], height), 0.03)
        yield from self.arm.move(goal + OVER_GOAL / 2 * UP, 0.02, speed=0.5)
        return (yield from self.arm.dwell(ONWARD))

    def push(self, name: str, target: str) -> Actions:
        yield from self.pick(name)
        goal = self.scene.site_position(target)
        yield from self.arm.move(np.append(goal[:2], self.arm.position[2]), 0.02, speed=0.6)
        return (yield from self.arm.dwell(ONWARD))


def miss(sim: LiberoSim, max_steps: int, rng: np.random.Generator) -> tuple[Expert, int]:
    """Miss the first grasp in the loaded scene; returns the expert at its turn, the steps so far.

    Where nothing is grasped in half of `max_steps`, the expert takes over then.
    """
    clumsy, onward = ClumsyExpert(sim, rng), int(rng.integers(1, ONWARD + 1))
    last, steps = SETTLE_ACTION, 0
    while onward and steps < max_steps // 2 and not clumsy.done:
        last = clumsy.act()
        sim.step(last)
        steps += 1
        onward -= clumsy.missed
    return successor(sim, last, rng), steps
