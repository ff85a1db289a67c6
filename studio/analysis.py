"""Analyst: landscape slices and descents of a session's plans, computed beside the control loop.

One thread per session. Of each page and kind only the newest request waits or runs: a superseded
one is stopped in mid-computation, and its answer is never delivered (each carries the page's
stamp).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from models.policy import Policy
from studio.advice import Adviser
from studio.events import MAX_CHAINS, Advice
from studio.feed import Feed
from studio.viz.descent import descent_figure
from studio.viz.landscape import Reference, reading, slice_figure

log = logging.getLogger(__name__)

MAX_SPAN = 20.0


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """What the page asks of one plan. `span` is the half-width of the slice, normalised units.

    Raises ValueError for more than a page may ask; what fits the plan, `models.landscape` knows.
    """

    kind: str  # "slice" | "descent"
    stamp: int
    plan: int
    timestep: int = 0
    dims: tuple[int, int] = (0, 1)
    span: float = 1.5
    grid: int = 50
    mode: str = "contour"
    chains: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.span <= MAX_SPAN:
            raise ValueError(f"landscape: the range must lie in (0, {MAX_SPAN:g}]")
        if not 1 <= self.chains <= MAX_CHAINS:
            raise ValueError(f"landscape: the chains must be 1 to {MAX_CHAINS}")


class Analyst:
    """See the module docstring. `deliver` is called on the analyst's thread."""

    def __init__(self, policy: Policy, feed: Feed, adviser: Adviser) -> None:
        self._policy, self._feed, self._adviser = policy, feed, adviser
        # By page and kind.
        self._pending: dict[tuple[int, str], tuple[AnalysisRequest, Callable[[dict], None]]] = {}
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._run, name="analyst", daemon=True).start()

    def submit(self, request: AnalysisRequest, deliver: Callable[[dict], None], page: int) -> None:
        """Compute `request` after those of others; replaces the page's own of its kind."""
        with self._changed:
            self._pending[page, request.kind] = (request, deliver)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what is in hand is stopped."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                page, kind = next(iter(self._pending))
                request, deliver = self._pending.pop((page, kind))
            self._answer(request, deliver, page)

    def _answer(self, request: AnalysisRequest, deliver: Callable[[dict], None], page: int) -> None:
        head = {"type": request.kind, "stamp": request.stamp, "plan": request.plan}
        stale = lambda: self._closed or (page, request.kind) in self._pending  # noqa: E731
        try:
            figure = self._figure(request, stale)
        except InterruptedError:
            return
        except Exception as error:  # the page shows it in the pane; the session lives on
            bug = not isinstance(error, ValueError)
            log.warning("%s of plan %d: %s", request.kind, request.plan, error, exc_info=bug)
            deliver({**head, "error": str(error)})
            return
        if not stale():
            deliver({**head, **figure})

    def _figure(self, request: AnalysisRequest, stop: Callable[[], bool]) -> dict:
        record = next((r for r in self._feed.snapshot().plans if r.index == request.plan), None)
        if record is None:
            raise ValueError("this plan is not at hand any more; choose another")
        plan, trace, chain = record.plan, record.plan.trace, record.plan.chain
        if trace is None:
            raise ValueError("this plan has no energy: another kind of head made it")
        expert = self._adviser.ask(record)  # found out in another process, meanwhile
        if request.kind == "descent" and request.chains > 1:
            sampler = dataclasses.replace(plan.sampler, chains=request.chains)
            trace = self._policy.explore(plan.observation, sampler, plan.seed, stop)
            chain = int(trace.energies[-1].argmin())
        surface = self._policy.slice_2d(
            plan.observation,
            trace.actions[-1, chain],
            timestep=request.timestep,
            dims=request.dims,
            span=request.span,
            grid=request.grid,
            stop=stop,
        )
        advice = expert(stop)
        known = isinstance(advice, Advice)
        mark = Reference("expert", advice.normalized, advice.energy) if known else None
        answer = {
            "reading": reading(surface, trace, chain, mark),
            "expert": {"known": known, "text": advice.phase if known else advice},
        }
        if request.kind == "slice":
            figure = slice_figure(surface, trace, chain, request.mode, mark)
            return {"figure": figure, **answer}
        figure = descent_figure(surface, trace, chain, mark)
        return {"figure": figure, "steps": len(trace.energies) - 1, **answer}
