"""Feed: what a page can read of a running loop. A subscriber with a latest-wins mailbox for the
picture and the state, and the newest of the episode's plans, comparisons and marks.

Readers hold cursors (episode, plans seen, marks sent, frame number) and take what is new; a slow
reader costs nothing and never holds the loop up. A long episode takes no more memory than a short
one: the oldest plans give way, and `studio.recorder` has them all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from models.types import Plan
from studio.events import Comparison, EpisodeEvent, Frame, Mark, StepEvent
from studio.state import LoopState

MAX_PLANS = 256  # 0.1 MB each; 2,048 control steps of the policy, where LIBERO's longest have 520
MAX_COMPARISONS = 5000  # half an hour of driving by hand


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan, the how manieth it is of its episode, and the control step that it starts at."""

    index: int
    step: int
    plan: Plan


def append_mark(marks: list[Mark], mark: Mark) -> None:
    """Marks of one kind at one step are one mark: a dragged slider leaves its last value.

    A request for help and its answer, which come at one step, are two.
    """
    last = marks[-1] if marks else None
    if last and (last.step, last.kind) == (mark.step, mark.kind) and mark.kind != "help":
        marks[-1] = mark
    else:
        marks.append(mark)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the feed; `compared` counts those that have gone, too."""

    state: LoopState
    episode: int
    plans: tuple[PlanRecord, ...]
    marks: tuple[Mark, ...]
    comparisons: tuple[Comparison, ...]
    compared: int
    frame: Frame | None
    frame_number: int
    closed: bool  # the session has ended


class Feed:
    """See the module docstring. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = LoopState()
        self._forget()
        self._episode = 0
        self._frame: Frame | None = None
        self._frame_number = 0
        self._closed = False
        self._listeners: set[Callable[[], None]] = set()

    def _forget(self) -> None:
        self._plans: deque[PlanRecord] = deque(maxlen=MAX_PLANS)
        self._comparisons: deque[Comparison] = deque(maxlen=MAX_COMPARISONS)
        self._marks: list[Mark] = []
        self._planned = self._compared = 0

    def snapshot(self) -> Snapshot:
        """The latest state and picture, and the history of the running episode."""
        with self._lock:
            return Snapshot(
                self._state,
                self._episode,
                tuple(self._plans),
                tuple(self._marks),
                tuple(self._comparisons),
                self._compared,
                self._frame,
                self._frame_number,
                self._closed,
            )

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` (from the loop's thread) whenever something is new; returns the undo."""
        with self._lock:
            self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    def close(self) -> None:
        """Tell the readers that nothing more will come."""
        with self._lock:
            self._closed = True
        self.notify()

    # -- Subscriber ---------------------------------------------------------------------------
    def on_state(self, state: LoopState) -> None:
        with self._lock:
            self._state = state
        self.notify()

    def on_episode(self, event: EpisodeEvent) -> None:
        if event.outcome is None:
            with self._lock:
                self._forget()
                self._episode += 1
                self._frame = None  # the newest is of the episode before
            self.notify()

    def on_plan(self, step: int, plan: Plan) -> None:
        with self._lock:
            self._plans.append(PlanRecord(self._planned, step, plan))
            self._planned += 1
        self.notify()

    def on_mark(self, mark: Mark) -> None:
        with self._lock:
            append_mark(self._marks, mark)
        self.notify()

    def on_frame(self, frame: Frame) -> None:
        with self._lock:
            self._frame = frame
            self._frame_number += 1
        self.notify()

    def on_comparison(self, comparison: Comparison) -> None:
        """Called by the onlooker, on its own thread."""
        with self._lock:
            self._comparisons.append(comparison)
            self._compared += 1
        self.notify()

    def on_step(self, event: StepEvent) -> None:
        """Steps reach the page through state, plan and frame."""

    def notify(self) -> None:
        """Let the readers look: something that they show beside the feed has changed."""
        for callback in tuple(self._listeners):
            callback()
