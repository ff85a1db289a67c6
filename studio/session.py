"""A session: its simulator process, control loop, feed and recorder, and the pages that show it.

A browser tab begins one; a copy of the tab shows the same one (`studio.wheel`).
`SessionManager` hands sessions out up to a cap, lets the rest queue, and closes those that nobody
watches. Nothing is shared between sessions but the policy, which keeps no state of theirs.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from models.policy import Policy
from studio.advice import Adviser
from studio.analysis import AnalysisRequest, Analyst
from studio.events import Command, Comparison, LoadScene, Run, SceneSpec, SetGuard, Status
from studio.feed import Feed
from studio.guard import Guard
from studio.loop import ControlLoop
from studio.onlooker import Onlooker
from studio.policies import EpisodePolicy, level
from studio.recorder import Recorder
from studio.sim.process import SimProcess
from studio.tape import Tape
from studio.wheel import Wheel

log = logging.getLogger(__name__)

CLOSE_S = 5.0  # for the control step in hand to end


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How sessions begin and end. Raises ValueError for times that are not positive."""

    cap: int = 4  # simulators at the same time, at most
    scene: SceneSpec = field(default_factory=SceneSpec)  # what a new page shows
    autorun: bool = False  # whether it runs at once
    linger_s: float = 60.0  # how long one outlives its last page, so that a reload finds it
    idle_s: float = 1800.0  # a page that does nothing for so long gives its simulator back
    recordings: Path = Path("recordings")  # folder of what people record

    def __post_init__(self) -> None:
        if not (self.linger_s > 0 and self.idle_s > 0):
            raise ValueError("sessions: linger and idle times must be positive")


@dataclass
class Session:
    """Everything that the pages of one browser tab and its copies share."""

    token: str
    policy: EpisodePolicy
    sim: SimProcess
    loop: ControlLoop
    feed: Feed
    recorder: Recorder
    tape: Tape
    analyst: Analyst
    wheel: Wheel
    thread: threading.Thread  # of the loop
    driver: str = "policy"  # as the pages asked for last; the loop follows
    name: str = field(default_factory=lambda: secrets.token_hex(4))  # tells it from later ones
    watchers: int = 0
    unwatched_since: float = field(default_factory=time.monotonic)
    last_active: float = field(default_factory=time.monotonic)

    @classmethod
    def open(
        cls,
        token: str,
        newest: Callable[[], Policy],
        provenance: dict[str, object],
        options: SessionOptions,
    ) -> Session:
        """Start the simulator and the loop's thread; the scene loads in the background."""
        provenance = dict(provenance)
        policy = EpisodePolicy(newest, provenance)
        sim, feed, recorder = SimProcess(policy.choose), Feed(), Recorder(provenance)
        tape = Tape(options.recordings, sim, provenance)

        def compared(comparison: Comparison) -> None:
            feed.on_comparison(comparison)
            recorder.on_comparison(comparison)
            tape.on_comparison(comparison)

        guard = Guard(lambda score: level(policy.current, score))
        listeners = [policy, feed, recorder, tape, Onlooker(sim, policy, compared)]
        loop = ControlLoop(sim, policy, listeners, guard=guard)
        thread = threading.Thread(target=loop.run, name=f"loop-{token[:6]}", daemon=True)
        thread.start()
        loop.submit(LoadScene(options.scene))
        if options.autorun:
            loop.submit(Run())
        adviser = Adviser(sim, policy, feed, recorder.on_advice)
        analyst = Analyst(policy, feed, adviser)
        wheel = Wheel(feed.notify)
        return cls(token, policy, sim, loop, feed, recorder, tape, analyst, wheel, thread)

    def submit(self, command: Command) -> None:
        """Pass a command to the loop. Raises ValueError for a guard that has nothing to go by."""
        asked = isinstance(command, SetGuard) and command.guard.on
        if asked and level(self.policy.current, command.guard.score) is None:
            raise ValueError(
                f"guard: this checkpoint has no calibration for {command.guard.score}; "
                "make one in the OOD lab: evaluate it there, then Save as calibration"
            )
        self.last_active = time.monotonic()
        self.loop.submit(command)

    def analyse(self, request: AnalysisRequest, deliver: Callable[[dict], None], page: int) -> None:
        """Pass a page's request for a figure to the analyst."""
        self.last_active = time.monotonic()
        self.analyst.submit(request, deliver, page)

    def unused(self, options: SessionOptions) -> bool:
        """Nobody watches any more, or nothing has happened and nobody asked for long."""
        now = time.monotonic()
        state = self.loop.state
        if state.status in (Status.LOADING, Status.RUNNING) and not state.resting:
            self.last_active = now
        left = self.watchers <= 0 and now - self.unwatched_since > options.linger_s
        return left or now - self.last_active > options.idle_s

    def close(self) -> None:
        """Stop the loop, the analyses and the simulator; safe to call twice."""
        self.feed.close()
        self.loop.close()
        self.thread.join(CLOSE_S)  # the simulator ends under it only if it hangs
        self.tape.close()
        self.analyst.close()
        self.sim.close()


class SessionManager:
    """Sessions by token. Thread-safe."""

    def __init__(
        self, policy: Policy, provenance: dict[str, object], options: SessionOptions
    ) -> None:
        """`policy` plans new episodes, `provenance` goes with what is recorded of them."""
        self.policy, self.options = policy, options
        self._provenance = provenance
        self._sessions: dict[str, Session] = {}
        self._queue: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._reap, name="session-reaper", daemon=True).start()

    def attach(self, token: str) -> Session | int:
        """The session of `token`, made if there is room; otherwise the place in the queue (1 …)."""
        with self._lock:
            if session := self._sessions.get(token):
                session.watchers += 1
                return session
            if token not in self._queue:
                self._queue.append(token)
            place = self._queue.index(token) + 1
            if place > self.options.cap - len(self._sessions):
                return place
            self._queue.remove(token)
            session = Session.open(token, lambda: self.policy, self._provenance, self.options)
            session.watchers = 1
            self._sessions[token] = session
            return session

    def leave_queue(self, token: str) -> None:
        """A page gave up waiting."""
        with self._lock:
            if token in self._queue:
                self._queue.remove(token)

    def detach(self, session: Session) -> None:
        """A page of `session` closed; its token may have another one by now."""
        with self._lock:
            session.watchers -= 1
            session.unwatched_since = time.monotonic()

    def get(self, token: str) -> Session | None:
        """The running session of `token`, or None."""
        with self._lock:
            return self._sessions.get(token)

    def __len__(self) -> int:
        """Running sessions."""
        with self._lock:
            return len(self._sessions)

    def close(self) -> None:
        """Close every session."""
        self._stop.set()
        self._drop(lambda session: True)

    def _reap(self) -> None:
        while not self._stop.wait(min(5.0, self.options.linger_s / 4)):
            self._drop(lambda session: session.unused(self.options))

    def _drop(self, condition: Callable[[Session], bool]) -> None:
        with self._lock:
            gone = [s for s in self._sessions.values() if condition(s)]
            for session in gone:
                del self._sessions[session.token]
        if gone:
            with ThreadPoolExecutor(len(gone)) as threads:  # each may wait for its simulator
                threads.map(_end, gone)


def _end(session: Session) -> None:
    log.info("closing session %s", session.token[:6])
    try:
        session.close()
    except Exception:  # whoever waits for all of them goes on
        log.exception("session %s did not close", session.token[:6])
