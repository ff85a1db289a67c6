"""Onlooker: what the policy thinks of a person who drives, found out beside the control loop.

A subscriber that gathers a person's actions into chunks of the policy's length. A chunk begins in
the state that the first step of its own left behind, so that nothing is asked of the scene before
somebody has moved. A thread then gives E(a_human, C) and, for the same picture, the energy of the
plan that the policy would have made: the arm never waits, and a chunk that ends while another is
being weighed is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from models.policy import Policy
from models.types import Observation
from studio.events import Comparison, EpisodeEvent, StepEvent
from studio.helm import plan_seed
from studio.sensor import corrupted
from studio.sim.process import SimProcess
from studio.state import LoopState, Subscriber

log = logging.getLogger(__name__)


class Onlooker(Subscriber):
    """See the module docstring. `tell` gets each comparison, on the onlooker's thread."""

    def __init__(self, sim: SimProcess, policy: Policy, tell: Callable[[Comparison], None]) -> None:
        self._sim, self._policy, self._tell = sim, policy, tell
        self._state = LoopState()
        self._episode = 0
        self._drop()
        self._work = ThreadPoolExecutor(1, "onlooker")
        self._weighing: Future[None] | None = None

    def on_state(self, state: LoopState) -> None:
        self._state = state

    def on_episode(self, event: EpisodeEvent) -> None:
        self._episode += 1
        self._drop()

    def on_step(self, event: StepEvent) -> None:
        if event.driver != "human":
            return self._drop()
        if self._seen is None:
            return self._begin(event.step)
        self._actions.append(event.action)
        if len(self._actions) == self._policy.config.horizon:
            self._weigh(self._seen, np.stack(self._actions))
            self._begin(event.step)

    def _drop(self) -> None:
        self._step, self._seen, self._actions = 0, None, []

    def _begin(self, step: int) -> None:
        """Look at the scene now; the pictures of the step that was just drawn are used again."""
        seed = plan_seed(self._state.scene, step)
        seen = self._sim.observe(self._state.instruction, noted=False)
        self._step, self._actions = step, []
        self._seen = corrupted(seen, self._state.sensor, seed)

    def _weigh(self, seen: Observation, actions: np.ndarray) -> None:
        """Let the thread weigh a chunk, unless it is at another."""
        if self._weighing is None or self._weighing.done():
            task = (self._episode, self._step, self._state, seen, actions)
            self._weighing = self._work.submit(self._compare, *task)

    def _compare(
        self, episode: int, step: int, state: LoopState, seen: Observation, actions: np.ndarray
    ) -> None:
        try:
            chunk = self._policy.normalize(actions)[None]
            energies, _ = self._policy.energies(seen, chunk)  # first: a head may have none
            plan = self._policy.plan(seen, state.sampler, plan_seed(state.scene, step))
            if episode == self._episode:
                self._tell(Comparison(step, float(energies[0]), plan.final_energy))
        except Exception as error:  # of a policy on another machine that is away, say
            log.info("the person's chunk at step %d is not compared: %s", step, error)
