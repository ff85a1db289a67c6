"""Adviser: what the scripted expert would have done instead of a plan, asked once per plan."""

from __future__ import annotations

import time
from collections.abc import Callable

from models.policy import Policy
from studio.events import Advice
from studio.feed import Feed, PlanRecord
from studio.sim.process import SimCrashed, SimError, SimProcess

POLL_S = 0.02

Answer = Callable[[Callable[[], bool]], Advice | str]


class Adviser:
    """Asks one session's simulator. Used by one thread; the episode goes on undisturbed."""

    def __init__(
        self,
        sim: SimProcess,
        policy: Policy,
        feed: Feed,
        keep: Callable[[PlanRecord, Advice], None],
    ) -> None:
        """`keep` is told each answer once, to store it with the episode."""
        self._sim, self._policy, self._feed, self._keep = sim, policy, feed, keep
        self._episode = -1
        self._known: dict[int, Advice | str] = {}  # by the plan's index

    def ask(self, record: PlanRecord) -> Answer:
        """Begin to find out. The function returned waits for the answer until its `stop()` is true.

        It gives an `Advice`, or the reason why there is none, and raises InterruptedError when
        stopped.
        """
        episode = self._feed.snapshot().episode
        if episode != self._episode:
            self._episode, self._known = episode, {}
        if record.index in self._known:
            return lambda stop: self._known[record.index]
        try:
            words, horizon = record.plan.observation.instruction, len(record.plan.actions)
            ticket = self._sim.ask_expert(record.step, words, horizon)
        except (SimError, SimCrashed) as error:
            reason = str(error)
            return lambda stop: reason
        return lambda stop: self._wait(episode, record, ticket, stop)

    def _wait(
        self, episode: int, record: PlanRecord, ticket: int, stop: Callable[[], bool]
    ) -> Advice | str:
        try:
            while (chunk := self._sim.expert_answer(ticket)) is None:
                if stop():
                    raise InterruptedError("stopped: a newer request waits")
                time.sleep(POLL_S)
        except (SimError, SimCrashed) as error:
            self._known[record.index] = str(error)
            return str(error)
        if self._feed.snapshot().episode != episode:
            return "the episode has ended"  # and the answer may be about the next one
        normalized = self._policy.normalize(chunk.actions)
        energies, _ = self._policy.energies(record.plan.observation, normalized[None])
        advice = Advice(chunk.actions, normalized, float(energies[0]), chunk.phase)
        self._known[record.index] = advice
        self._keep(record, advice)
        return advice
