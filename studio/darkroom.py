"""Darkroom: replays and energies of recordings, worked on in the background one after another.

A replay is a process of its own (`python -m studio.replay`), so that its simulator can neither take
the studio down nor disturb a live scene's. It ends with the studio: nobody reads its progress then.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.policy import Policy
from studio import recording, rescore
from studio.library import Library
from studio.places import ROOT
from studio.replay import ACTIONS, DEMO, STATES

log = logging.getLogger(__name__)

REPLAY, ENERGIES = "replay", "energies"

Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Work:
    """How the work on a recording stands; `problem` is why it ended before its time."""

    what: str  # REPLAY or ENERGIES
    done: int = 0
    total: int = 0
    problem: str = ""


class Darkroom:
    """Works on the recordings of a library. Thread-safe."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._queue: queue.Queue[tuple[str, str, Callable[[Path, Tell], None]]] = queue.Queue()
        self._work: dict[str, Work] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def work(self) -> dict[str, dict[str, Any]]:
        """What is waiting or under way, by recording; and what failed, until it is tried again."""
        with self._lock:
            return {name: asdict(work) for name, work in self._work.items()}

    def replay(self, name: str, source: str = ACTIONS) -> None:
        """Make `demo.hdf5` from a tape. Raises ValueError for a bad name or source, or if busy."""
        if source not in (ACTIONS, STATES):
            raise ValueError(f"replay from {ACTIONS} or {STATES}, not {source!r}")
        folder = self._library.folder(name)
        recording.read(folder)  # what can't be read is refused at once
        if recording.being_written(folder):
            raise ValueError(f"{name}: is being recorded; end its episode first")
        options = ["--states"] if source == STATES else []
        self._submit(name, REPLAY, lambda folder, tell: _replay(folder, options, tell))

    def develop(self, name: str) -> None:
        """Replay, unless that is done or under way already. Raises ValueError."""
        folder = self._library.folder(name)
        under_way = self.work().get(name, {})
        waiting = under_way.get("what") == REPLAY and not under_way["problem"]
        if not (folder / DEMO).is_file() and not waiting:
            self.replay(name)

    def energies(self, name: str, load: Callable[[], Policy]) -> None:
        """Score a replayed recording with the checkpoint that `load` gives. Raises ValueError."""
        if not (self._library.folder(name) / DEMO).is_file():
            raise ValueError("replay the recording first: energies need its pictures")

        def score(folder: Path, tell: Tell) -> None:
            policy = load()
            if not rescore.path(folder, policy.checkpoint.sha256).is_file():
                scores = rescore.rescore(folder, recording.read(folder), policy, tell)
                rescore.write(folder, policy, scores)

        self._submit(name, ENERGIES, score)

    def _submit(self, name: str, what: str, action: Callable[[Path, Tell], None]) -> None:
        with self._lock:
            if (old := self._work.get(name)) and not old.problem:
                raise ValueError(f"{name}: its {old.what} is under way; wait for it")
            self._work[name] = Work(what)
            self._queue.put((name, what, action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="darkroom", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """The thread."""
        while True:
            self._do(*self._queue.get())

    def _do(self, name: str, what: str, action: Callable[[Path, Tell], None]) -> None:
        """One piece of work; any fault is the recording's, never the studio's."""
        try:
            action(
                self._library.folder(name),
                lambda done, total: self._set(name, Work(what, done, total)),
            )
        except Exception as error:
            log.warning("%s of %s: %s", what, name, error)
            self._set(name, Work(what, problem=str(error) or type(error).__name__))
        else:
            self._set(name, None)

    def _set(self, name: str, work: Work | None) -> None:
        with self._lock:
            if work is None:
                self._work.pop(name, None)
            else:
                self._work[name] = work


def _replay(folder: Path, options: list[str], tell: Tell) -> None:
    """Run the command to its end. Raises ValueError with its own words when it fails."""
    command = [sys.executable, "-m", "studio.replay", str(folder), *options]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        with child.stdout:
            for line in child.stdout:
                if b'"done"' in line:
                    told = json.loads(line)
                    tell(told["done"], told["total"])
        code = child.wait()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or [""])[-1]
    if code < 0:
        raise ValueError(f"the replay was ended by {signal.Signals(-code).name}; try again")
    if code:
        raise ValueError(last.removeprefix("replay: ") or f"the replay ended with {code}")
