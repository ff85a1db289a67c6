"""Tape: an episode written down as it happens, so that nothing that a person did can be lost.

    RECORDINGS/<id>/tape.jsonl   one event a line, written through at once
    RECORDINGS/<id>/thumb.jpg    agentview when the recording began, then when it ended

Physics are deterministic: an episode is its scene and its actions. Pictures would take a thousand
times the room, so the tape leaves them to a replay (`studio.replay`), which draws them again in a
simulator of its own. It does hold the state after each step (1 KB): a replay is checked against
them, and they still show what happened where another version's physics would not.

An episode in which a person drove is recorded from its first step, whether or not somebody thought
of it; all others if they are asked for, during the episode or after it. The tape is locked (flock)
while it is written, and no crash leaves a lock behind: a tape without an end that nobody holds was
cut short, and holds everything up to there. `studio.recording` reads it back.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.types import Plan
from studio.events import Comparison, EpisodeEvent, Frame, Mark, Outcome, StepEvent
from studio.recorder import step_row
from studio.state import LoopState

log = logging.getLogger(__name__)

FORMAT = 1
TAPE, THUMB = "tape.jsonl", "thumb.jpg"
VIEW = ("camera", "light", "sensor", "instruction")  # of the loop's state: how the scene is seen

Row = dict[str, Any]


class StateSource(Protocol):
    """The simulator, as far as a tape asks it."""

    def get_state(self) -> np.ndarray: ...


class Tape:
    """A subscriber of the loop that records its episodes. Thread-safe.

    A fault of the disk ends the recording, never the episode; `status()` then says so.
    """

    def __init__(self, folder: Path, sim: StateSource, provenance: dict[str, object]) -> None:
        """`folder`: of all recordings. `provenance`: checkpoint and versions, stored with each."""
        self._folder, self._sim, self._provenance = folder, sim, provenance
        self._lock = threading.Lock()
        self._every = False
        self._episode = 0
        self._state = LoopState()
        self._picture: bytes | None = None
        self._file: FileIO | None = None
        self._forget()

    # -- what the page asks -------------------------------------------------------------------
    def status(self) -> Row:
        """`id` (None: not recorded so far), the how manieth `episode` of this session it is,
        `steps`, `human` steps, `ended`, `every`, `discarded`, `problem`."""
        with self._lock:
            return {
                "id": self._path.name if self._path else None,
                "episode": self._episode,
                "steps": self._steps,
                "human": self._human,
                "ended": self._ended,
                "every": self._every,
                "discarded": self._discarded,
                "problem": self._problem,
            }

    def record_every(self, on: bool) -> None:
        """Record every episode, the present one included, or only those that a person drives."""
        with self._lock:
            self._every = on
            if on and self._steps and not self._ended:
                self._open()

    def save(self, episode: int) -> str:
        """Record `episode`, the present one or the one that has just ended; returns its id.

        Raises ValueError when another has begun since, or there is nothing to record.
        """
        with self._lock:
            self._check(episode)
            if not self._steps:
                raise ValueError("Nothing has happened yet: run the scene first.")
            if self._path is None:
                self._problem = ""  # there may be room by now
            self._open()
            if self._path is None:
                raise ValueError(self._problem)
            if self._ended:
                self._close()
            return self._path.name

    def recorded(self, episode: int) -> str:
        """The id of `episode`. Raises ValueError when another has begun since, or it has none."""
        with self._lock:
            self._check(episode)
            if self._path is None:
                raise ValueError("nothing is recorded here")
            return self._path.name

    def let_go(self, name: str) -> None:
        """Write no more to the recording `name`: it was discarded."""
        with self._lock:
            if self._path and self._path.name == name:
                if not self._ended:
                    self._end(str(Outcome.STOPPED), "discarded while it ran")
                self._close()
                self._forget()
                self._discarded = True

    def close(self) -> None:
        """The session ends; an episode that still runs is marked as stopped."""
        with self._lock:
            if not self._ended:
                self._end(str(Outcome.STOPPED), "the page was closed")

    # -- Subscriber ---------------------------------------------------------------------------
    def on_state(self, state: LoopState) -> None:
        with self._lock:
            changed = any(getattr(state, name) != getattr(self._state, name) for name in VIEW)
            self._state = state
            if changed:
                self._note(self._view())

    def on_episode(self, event: EpisodeEvent) -> None:
        first = self._sim.get_state() if event.outcome is None else None
        with self._lock:
            if first is not None:
                self._begin(event, first)
            elif self._begun:
                self._end(str(event.outcome), event.message)

    def on_step(self, event: StepEvent) -> None:
        state = self._sim.get_state()
        with self._lock:
            if not self._begun or self._ended:
                return
            self._steps += 1
            self._human += event.driver != "policy"
            self._write({**step_row(event), "state": pack(state)})
            if self._every or event.driver != "policy":
                self._open()

    def on_plan(self, step: int, plan: Plan) -> None:
        energies = {"initial": plan.initial_energy, "final": plan.final_energy}
        how = {"seed": plan.seed, "sampler": dataclasses.asdict(plan.sampler)}
        with self._lock:
            self._note({"event": "plan", "step": step, **how, **energies})

    def on_mark(self, mark: Mark) -> None:
        with self._lock:
            self._note({"event": "mark", **dataclasses.asdict(mark)})

    def on_comparison(self, comparison: Comparison) -> None:
        """Called by the onlooker, on its own thread."""
        with self._lock:
            self._note({"event": "comparison", **dataclasses.asdict(comparison)})

    def on_frame(self, frame: Frame) -> None:
        self._picture = frame.jpegs.get("agentview")

    # -- the tape, under the lock -------------------------------------------------------------
    def _check(self, episode: int) -> None:
        if episode != self._episode:
            raise ValueError("another episode has begun; Recordings has the last, if it was kept")

    def _forget(self) -> None:
        self._close_file()
        self._rows: list[Row] = []  # until it is known whether the episode is recorded
        self._path: Path | None = None
        self._steps = self._human = 0
        self._begun, self._ended, self._problem = False, False, ""
        self._discarded = False  # and nothing more of this episode is wanted

    def _begin(self, event: EpisodeEvent, state: np.ndarray) -> None:
        self._close()
        self._forget()
        self._begun = True
        self._episode += 1
        about = dataclasses.asdict(event)
        self._write(
            {
                "event": "episode",
                "format": FORMAT,
                "begun": time.time(),
                **{name: about[name] for name in ("scene", "instruction", "versions")},
                "provenance": dict(self._provenance),
                "max_steps": self._state.max_steps,
                "state": pack(state),
            }
        )
        self._write(self._view())

    def _view(self) -> Row:
        plain = dataclasses.asdict(self._state)
        return {"event": "view", "step": self._steps, **{name: plain[name] for name in VIEW}}

    def _end(self, outcome: str, message: str) -> None:
        self._write({"event": "end", "outcome": outcome, "message": message, "steps": self._steps})
        self._ended = True
        if self._path:
            self._close()

    def _note(self, row: Row) -> None:
        """Write a row of the running episode."""
        if self._begun and not self._ended:
            self._write(row)

    def _write(self, row: Row) -> None:
        """Append a row; where it goes is open until the episode is known to be recorded."""
        if self._file is None:
            if not self._path:
                self._rows.append(row)
            return
        try:
            _append(self._file, [row])
        except OSError as error:
            self._fail(error)

    def _open(self) -> None:
        """Begin the recording's folder with what has happened so far; once per episode."""
        if self._path or self._problem:
            return
        path = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        try:
            path.mkdir(parents=True)
            self._file = FileIO(path / TAPE, "a")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            _append(self._file, self._rows)
        except OSError as error:
            self._fail(error)
            shutil.rmtree(path, ignore_errors=True)
            return
        self._path, self._rows = path, []
        self._keep_picture()

    def _close(self) -> None:
        if self._file:
            self._keep_picture()
        self._close_file()

    def _keep_picture(self) -> None:
        if self._picture:
            with contextlib.suppress(OSError):  # a recording does without
                fresh = self._path / f".{THUMB}"
                fresh.write_bytes(self._picture)
                os.replace(fresh, self._path / THUMB)

    def _fail(self, error: OSError) -> None:
        self._problem = (
            f"Recording stopped at step {self._steps}: {error.strerror}. What came before is kept."
            if self._path
            else f"Nothing could be recorded: {error.strerror}. Make room, then press Keep: "
            "the episode is still at hand."
        )
        log.error("recording: %s", error)
        self._close_file()

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
        self._file = None


def _append(file: FileIO, rows: Iterable[Row]) -> None:
    """Write all rows through, or none. Raises OSError."""
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    whole = file.tell()
    try:
        while data:  # a disk that is nearly full takes a part
            data = data[file.write(data) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(whole)
        raise


def pack(values: np.ndarray) -> str:
    """float64 values, bit for bit, as text."""
    return base64.b64encode(np.asarray(values, "<f8").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """What `pack` was given. Raises ValueError for other text."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8")
