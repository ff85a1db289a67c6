"""The expert in mid-episode: what it would do from here, and taking over from somebody else."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from studio.sim.expert import Expert
from studio.sim.expert_motion import CLOSE, SLOW, Actions
from studio.sim.expert_skills import HOVER, Manipulation
from studio.sim.grasp import Grasp, plan_grasp

if TYPE_CHECKING:
    from studio.sim.libero_sim import LiberoSim

NEARBY = 0.02  # m beside a grasp's approach that still count as being on it


class Latecomer(Expert):
    """The expert asked in mid-episode: it goes on from what the hand is doing already.

    A held object is placed, not picked up again; a hand above its grasp goes on down; the first
    commands continue the hand's motion, whose acceleration is limited. A hand that works on a
    drawer, a door or a knob would start over: it has no answer then (ValueError).
    """

    def __init__(self, sim: LiberoSim, last_action: np.ndarray) -> None:
        """`last_action` [7]: what was executed before. Raises ValueError as `Expert` does."""
        super().__init__(sim)
        self._arm._command = np.array(last_action[:3], dtype=np.float64)
        rng = np.random.default_rng(0)
        self._manipulation = _InMidMotion(self._scene, self._arm, rng)

    def _achieve(self, predicate: str, name: str, target: str | None = None) -> Actions:
        if target is None or self._shut(target):
            owner = self._scene.owner(target or name)
            if owner is not None and self._scene.gripper_touches(owner):
                raise ValueError(f"the hand is at work on the {owner}")
        return (yield from super()._achieve(predicate, name, target))

    def _shut(self, target: str) -> bool:
        """Whether a place for things is a drawer's or the like, and not open."""
        jointed = self._scene.is_site(target) and self._scene.joint(target) is not None
        return jointed and not self._env.object_states_dict[target].is_open()

    def _bring(self, name: str, target: str) -> Actions:
        gripper = self._env.robots[0].gripper
        if self._pushes or not self._env._check_grasp(gripper, self._env.get_object(name)):
            return (yield from super()._bring(name, target))
        self.phase = f"place {name}"
        self._arm.grip = CLOSE
        self._arm.rotation = self._scene.gripper_pose()[1]
        return (yield from self._manipulation.place(name, target))


class _InMidMotion(Manipulation):
    """Grasps without the way back up, when the hand is on its way down."""

    def _approach(
        self, name: str, failed: Sequence[Grasp] = ()
    ) -> Generator[np.ndarray, None, Grasp]:
        grasp, arm = plan_grasp(self.scene, name, failed), self.arm
        offset = arm.position - grasp.position
        above = float(offset @ -grasp.rotation[:, 2])
        beside = np.linalg.norm(offset + above * grasp.rotation[:, 2])
        if failed or beside > NEARBY or not -NEARBY < above < HOVER + NEARBY:
            return (yield from super()._approach(name, failed))
        arm.rotation = grasp.rotation
        yield from arm.move(grasp.position, 0.006, speed=SLOW, steps=30)
        return grasp


class _Successor(Latecomer):
    """A latecomer that drives: once under way it works on fixtures as the expert does."""

    _under_way = False

    def act(self) -> np.ndarray:
        action = super().act()
        self._under_way = True
        return action

    def _achieve(self, predicate: str, name: str, target: str | None = None) -> Actions:
        who = Expert if self._under_way else Latecomer
        return (yield from who._achieve(self, predicate, name, target))


def successor(sim: LiberoSim, last_action: np.ndarray, rng: np.random.Generator) -> Expert:
    """The expert from the present moment: in mid-motion where it can, from the start elsewhere."""
    with suppress(ValueError):
        _Successor(sim, last_action).act()  # has an answer
        return _Successor(sim, last_action)
    return Expert(sim, rng)
