"""One policy for many who ask at once; plans that wait together are made in one batch.

Between those who ask (simulators' threads, a server's clients) and the policy stands one thread.
While it makes a batch the next one gathers, so that nobody waits for a timer.

Batcher     takes requests for plans
Together    the policy itself, its plans made by a batcher
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from models.config import SamplerConfig
from models.policy import Policy
from models.types import Observation, Plan

MAX_BATCH = 16  # plans of one chain made together; of several chains, fewer


@dataclass(slots=True, eq=False)
class _Asked:
    observation: Observation
    sampler: SamplerConfig
    seed: int
    stop: Callable[[], bool]
    plan: Future[Plan] = field(default_factory=Future)

    @property
    def batch(self) -> tuple[SamplerConfig, tuple[int, ...]]:
        """Plans that have this in common can be made together."""
        return self.sampler, self.observation.images["agentview"].shape


class Closed(RuntimeError):
    """A batcher takes no more requests."""


class Batcher:
    """See the module docstring. A loop's `Controller`; thread-safe."""

    def __init__(
        self,
        policy: Policy,
        max_batch: int = MAX_BATCH,
        made: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`made` is told the size of each batch before it is made."""
        self._policy, self._max_batch, self._made = policy, max_batch, made
        self._waiting: deque[_Asked] = deque()
        self._news = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(
        self,
        obs: Observation,
        sampler: SamplerConfig,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> Future[Plan]:
        """The plan to come, with what the policy raises; cancelled in time it isn't made.

        Once nobody in a batch wants his plan any more, by `stop()`, the batch is broken off.
        Raises Closed after `close()`.
        """
        asked = _Asked(obs, sampler, seed, stop)
        with self._news:
            if not self._open:
                raise Closed("the batcher is closed")
            still = (a for a in self._waiting if not a.plan.cancelled())
            self._waiting = deque([*still, asked])
            self._news.notify()
        return asked.plan

    def plan(self, obs: Observation, sampler: SamplerConfig | None = None, seed: int = 0) -> Plan:
        """As `Policy.plan`, in a batch with what others ask for meanwhile."""
        return self.submit(obs, sampler or SamplerConfig(), seed).result()

    def close(self) -> None:
        """Make what is asked for already, then end; safe to call twice."""
        with self._news:
            self._open = False
            self._news.notify()

    def join(self, timeout_s: float) -> None:
        """After `close()`, wait until it has ended: a process must not leave amid a plan."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while batch := self._take():
            if batch := [asked for asked in batch if asked.plan.set_running_or_notify_cancel()]:
                self._make(batch)

    def _take(self) -> list[_Asked]:
        """The oldest request and those that fit it; empty once closed and nothing is left."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or not self._open)
            if not self._waiting:
                return []
            first = self._waiting[0]
            fitting = [a for a in self._waiting if a.batch == first.batch]
            batch = fitting[: max(1, self._max_batch // first.sampler.chains)]
            self._waiting = deque(asked for asked in self._waiting if asked not in batch)
            return batch

    def _make(self, batch: list[_Asked]) -> None:
        self._made(len(batch))
        try:
            plans = self._policy.plan_batch(
                [asked.observation for asked in batch],
                batch[0].sampler,
                [asked.seed for asked in batch],
                lambda: all(asked.stop() for asked in batch),
            )
        except InterruptedError as stopped:
            for asked in batch:
                asked.plan.set_exception(stopped)
        except Exception as error:  # it belongs to who asked
            if len(batch) == 1:
                batch[0].plan.set_exception(error)
            else:  # whose it is shows when each is made alone
                for asked in batch:
                    self._make([asked])
        else:
            for asked, plan in zip(batch, plans, strict=True):
                asked.plan.set_result(plan)


class Together:
    """A policy that makes the plans of several sessions together; all else is the policy's own.

    Worth it on a GPU: on a CPU a batch of two takes as long as two plans (see `fleet.LocalFleet`).
    """

    def __init__(self, policy: Policy) -> None:
        self._policy, self._batcher = policy, Batcher(policy)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def plan(self, obs: Observation, sampler: SamplerConfig | None = None, seed: int = 0) -> Plan:
        """As `Policy.plan`."""
        try:
            return self._batcher.plan(obs, sampler, seed)
        except Closed:  # an episode that goes on after the studio has changed its policy
            return self._policy.plan(obs, sampler, seed)

    def close(self) -> None:
        """End the batches; who still has this plans alone."""
        self._batcher.close()
