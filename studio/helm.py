"""The helm: whose action comes next, the policy's, a person's, or both.

The policy's chunk belongs to the policy alone: a change of driver drops what is left of it, and a
policy that gets the arm back plans anew. The gripper's last command outlives every change, so that
nothing is dropped.

While a person drives and holds nothing, the scene goes on for a second, so that fingers close and
things fall, and then rests until the next key: an idle person uses up no steps. The suite's limit
counts the policy's steps; those of a person extend it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from models.config import SamplerConfig
from models.types import Observation, Plan
from studio.events import SceneSpec
from studio.sensor import corrupted
from studio.state import LoopState
from studio.teleop import (
    OPEN,
    REST_STEPS,
    DriveInput,
    Pilot,
    arm_action,
    frame_axes,
    hand_rotation,
)

# Control steps between plans: the horizon H of every preset, whose chunks are thus carried out
# whole; of a longer one the rest is dropped.
REPLAN_EVERY = 8


class Controller(Protocol):
    """Whatever turns an observation into a plan."""

    def plan(self, obs: Observation, sampler: SamplerConfig, seed: int) -> Plan: ...


class PolicyAway(Exception):
    """A controller can't plan just now; its text says why. Ask again after `retry_s` seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Move:
    """One control step: the action [7], who gave it, and the plan that it begins, if it does."""

    action: np.ndarray
    driver: str
    plan: Plan | None = None


def plan_seed(scene: SceneSpec, index: int) -> int:
    """The sampler's seed of an episode's index-th plan: the same scene draws the same noise."""
    return int(np.random.SeedSequence([scene.seed, scene.init, index]).generate_state(1)[0])


class Helm:
    """See the module docstring. `observe` gives what is to be seen now, for an instruction."""

    def __init__(self, controller: Controller, observe: Callable[[str], Observation]) -> None:
        self._controller, self._observe = controller, observe
        self.pilot = Pilot()
        self.begin(np.zeros(8), np.zeros(3))

    def begin(self, proprio: np.ndarray, home: Sequence[float]) -> None:
        """Another episode; `proprio` [8]: where the hand is, `home` [3]: where the scene has it."""
        self._home, self._proprio = np.asarray(home, float), proprio
        self._plans, self._grip = 0, OPEN
        self.drop()

    def drop(self, chains: int | None = None) -> None:
        """Forget the chunk: what comes next is planned anew, once with so many `chains`."""
        self._chunk: deque[np.ndarray] = deque()
        self._fresh: Plan | None = None
        self._chains = chains
        self._settle = REST_STEPS
        self._held = DriveInput()

    @property
    def chunk_left(self) -> int:
        """Control steps to the next plan."""
        return len(self._chunk) or REPLAN_EVERY

    def rests(self, state: LoopState, now: float) -> bool:
        """Whether there is nothing to do until somebody holds a key, by what is held `now`."""
        if state.driver == "policy":
            return False
        self._held = held = self.pilot.look(now)
        if state.driver == "shared":
            return state.assists.gate and not (held.go or held.moves)
        self._settle = REST_STEPS if held.moves else self._settle - 1
        return self._settle < 0

    def plan(self, state: LoopState) -> Plan | None:
        """The policy's next plan, when one is due. Raises what the controller raises."""
        if self._chunk or state.driver == "human":
            return None
        seed = plan_seed(state.scene, self._plans)
        sampler = replace(state.sampler, chains=self._chains or state.sampler.chains)
        seen = corrupted(self._observe(state.instruction), state.sensor, seed)
        self._fresh = self._controller.plan(seen, sampler, seed)
        self._plans, self._chains = self._plans + 1, None
        self._chunk.extend(self._fresh.actions[:REPLAN_EVERY])
        return self._fresh

    def move(self, state: LoopState) -> Move:
        """The next action."""
        if state.driver == "human":
            return Move(self._by_hand(state), "human")
        action, plan, self._fresh = self._chunk.popleft(), self._fresh, None
        if state.driver == "policy" or not self._held.moves:
            return Move(action, "policy", plan)
        both = self._by_hand(state)
        both[:6] = np.clip(both[:6] + action[:6], -1, 1)
        both[6] = self._held.gripper or action[6]
        return Move(both, "shared", plan)

    def moved(self, move: Move, proprio: np.ndarray) -> None:
        """What came of it: the hand's proprioception [8]."""
        self._proprio = proprio
        self.pilot.stepped()
        self._grip = float(np.sign(move.action[6])) or self._grip

    def _by_hand(self, state: LoopState) -> np.ndarray:
        """What the person asks for, float32 [7]."""
        held, pose = self._held, state.pose
        axes = frame_axes(held.frame, hand_rotation(self._proprio), pose.look, pose.up)
        arm = arm_action(held, self._proprio, axes, self._home, state.assists)
        return np.append(arm, held.gripper or self._grip).astype(np.float32)
