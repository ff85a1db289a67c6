"""A scripted expert that sees the simulator's state and solves LIBERO tasks from their BDDL goal.

Every goal predicate becomes a skill (`expert_skills`, `expert_articulated`); grasps are planned
from collision geometry (`grasp`), never per task. It acts through the benchmark's own 7-D actions.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from studio.sim.expert_articulated import Articulation
from studio.sim.expert_motion import SLOW, Actions, Arm
from studio.sim.expert_scene import SceneGeometry
from studio.sim.expert_skills import Manipulation

if TYPE_CHECKING:
    from studio.sim.libero_sim import LiberoSim

PASSES = 3  # how often unmet goals are tried again
ORDER = {"open": 0, "turnon": 1, "in": 2, "on": 2, "close": 3}


class NoSkill(ValueError):
    """The expert can't bring about a goal of this task."""


class Expert:
    """Closed-loop expert for one episode of the loaded scene; deterministic given `rng`.

    `phase` says what it is doing, for people.
    """

    def __init__(self, sim: LiberoSim, rng: np.random.Generator | None = None) -> None:
        """Raises NoSkill when a goal of the task has none."""
        self._env = sim.env
        self._scene = SceneGeometry(sim.env)
        self._arm = Arm(self._scene)
        rng = rng if rng is not None else np.random.default_rng(0)
        self._manipulation = Manipulation(self._scene, self._arm, rng)
        self._articulation = Articulation(self._scene, self._arm)
        self._goals = sorted(map(tuple, sim.env.parsed_problem["goal_state"]), key=_order)
        self._pushes = "push" in sim.env.parsed_problem["language_instruction"]
        self._program = self._run()
        self._rest: np.ndarray | None = None  # where the hand stays once done
        self.phase = "start"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; `act` then stays where the hand is."""
        return self._rest is not None

    @property
    def retries(self) -> int:
        """Grasps that had to be repeated so far."""
        return self._manipulation.retries

    def act(self) -> np.ndarray:
        """The clean action, float64 [7] within [-1, 1], for the present state."""
        if self._rest is None:
            try:
                return next(self._program)
            except StopIteration:
                self._rest, self.phase = self._arm.position, "done"
        return self._arm.servo(self._rest, SLOW)

    def _run(self) -> Generator[np.ndarray, None, None]:
        for _ in range(PASSES):
            todo = [goal for goal in self._goals if not self._met(goal)]
            if not todo:
                return
            for goal in todo:
                yield from self._achieve(*goal)
            if not all(map(self._met, self._goals)):
                yield from self._arm.dwell(4)  # something may still be settling

    def _met(self, goal: tuple[str, ...]) -> bool:
        return bool(self._env._eval_predicate(goal))

    def _achieve(self, predicate: str, name: str, target: str | None = None) -> Actions:
        self.phase = f"{predicate} {name}"
        if predicate in ("on", "in"):
            return (yield from self._bring(name, target))
        joint = self._scene.joint(name)
        skills = {
            "open": self._articulation.open,
            "close": self._articulation.close,
            "turnon": self._articulation.turn_on,
        }
        return (yield from skills[predicate](joint))

    def _bring(self, name: str, target: str) -> Actions:
        if self._pushes:
            self.phase = f"push {name}"
            return (yield from self._manipulation.push(name, target))
        joint = self._scene.joint(target) if self._scene.is_site(target) else None
        if joint is not None and not self._env.object_states_dict[target].is_open():
            self.phase = f"open {target}"  # implied: the drawer must be open
            yield from self._articulation.open(joint)
        self.phase = f"pick {name}"
        if not (yield from self._manipulation.pick(name)):
            return False
        self.phase = f"place {name}"
        return (yield from self._manipulation.place(name, target))


def _order(goal: tuple[str, ...]) -> int:
    if goal[0] not in ORDER:
        raise NoSkill(f"expert: no skill for the goal {goal[0]!r}; it knows {sorted(ORDER)}")
    return ORDER[goal[0]]
