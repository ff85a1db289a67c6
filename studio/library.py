"""The library of recordings: what there is, what is kept, trimmed, thrown away and taken back.

Each recording is a folder (`studio.tape`). What people decide about it is in its recording.json:
whether it is `kept`, and which steps count, from `first` to before `last`; the tape itself is never
changed. A recording that is thrown away moves to the hidden folder .trash, until it is taken back
or deleted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.trajectory import DRIVERS
from models.whole import write_json
from studio import recording
from studio.remembered import Remembered
from studio.replay import DEMO, REPORT, changed
from studio.sim import catalog
from studio.sim.build import versions
from studio.tape import TAPE, THUMB

NOTE, TRASH = "recording.json", ".trash"
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody decided about a recording; the steps `first` <= t < `last` count."""

    kept: bool = False
    first: int = 0
    last: int | None = None  # None: to its end


class Library:
    """The recordings in a folder, which may not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(os.path.abspath(folder))

    def folder(self, name: str, trash: bool = False) -> Path:
        """Where the recording `name` lies. Raises ValueError when there is none."""
        found = (self.path / TRASH if trash else self.path) / name
        if not NAME.fullmatch(name) or not (found / TAPE).is_file():
            raise ValueError(f"{name}: there is no such recording")
        return found

    def all(self, trash: bool = False) -> list[dict[str, Any]]:
        """A row for each, the newest first; one that can't be read says why under `error`."""
        root = self.path / TRASH if trash else self.path
        names = sorted(os.listdir(root), reverse=True) if root.is_dir() else []
        rows = []
        for name in filter(NAME.fullmatch, names):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # thrown away just now
                rows.append(self._row(root / name))
        return rows

    def note(self, name: str) -> Note:
        """What is decided about a recording."""
        return _note(self.folder(name))

    def keep(self, name: str, kept: bool = True) -> None:
        """Mark as worth keeping, or not. Raises ValueError for no such one, OSError if full."""
        self._decide(name, kept=kept)

    def trim(self, name: str, first: int, last: int) -> None:
        """Let the steps `first` <= t < `last` count. Raises ValueError when it has no such span."""
        steps = len(recording.read(self.folder(name)))
        if not 0 <= first < last <= steps:
            raise ValueError(f"a span of {name} lies within 0 and {steps}, not {first} to {last}")
        self._decide(name, first=first, last=None if last == steps else last)

    def span(self, name: str) -> tuple[int, int]:
        """The steps that count: first, and the one after the last."""
        note = self.note(name)
        return note.first, note.last or len(recording.read(self.folder(name)))

    def throw_away(self, names: Iterable[str]) -> None:
        """Move to the trash. Raises ValueError for one that is missing or recorded just now."""
        folders = [self.folder(name) for name in names]
        for folder in folders:
            if recording.being_written(folder):
                raise ValueError(f"{folder.name}: is being recorded; end its episode first")
        (self.path / TRASH).mkdir(exist_ok=True)
        for folder in folders:
            folder.rename(self.path / TRASH / folder.name)

    def take_back(self, names: Iterable[str]) -> None:
        """Undo `throw_away`. Raises ValueError when it is not in the trash."""
        for folder in [self.folder(name, trash=True) for name in names]:
            folder.rename(self.path / folder.name)

    def delete(self, names: Iterable[str]) -> None:
        """Delete these for good, out of the trash; one that is no longer there is passed over.

        Raises OSError for what can't be deleted.
        """
        for name in names:
            with contextlib.suppress(ValueError):
                shutil.rmtree(self.folder(name, trash=True))
        with contextlib.suppress(OSError):  # of others
            (self.path / TRASH).rmdir()

    def _decide(self, name: str, **changes: object) -> None:
        folder = self.folder(name)
        write_json(folder / NOTE, asdict(_note(folder)) | changes)

    def _row(self, folder: Path) -> dict[str, Any]:
        try:
            stat = (folder / TAPE).stat()
        except PermissionError as error:
            return {"id": folder.name, **_unreadable(error, 0.0), **asdict(Note())}
        writing = recording.being_written(folder)
        size, changed_ns = stat.st_size, stat.st_mtime_ns
        if writing:  # one that grows is read again when it has grown by a twentieth
            size, changed_ns = round(math.log(size + 1, 1.05)), 0
        about = _OUTLINES.get(folder, (size, changed_ns), lambda: _outline(folder))
        return {
            "id": folder.name,
            **about,
            **asdict(_note(folder)),
            "writing": writing,
            "replay": _report(folder),
            "thumb": _stamp(folder / THUMB),
            "demo": _stamp(folder / DEMO),
        }


def _note(folder: Path) -> Note:
    try:
        note = Note(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        return Note()
    sound = type(note.first) is int and (note.last is None or type(note.last) is int)
    return note if sound else Note()


def _report(folder: Path) -> dict[str, Any] | None:
    """What a replay found, once there is one."""
    try:
        return json.loads((folder / REPORT).read_text())
    except (OSError, ValueError):
        return None


def _stamp(path: Path) -> int | None:
    """When a file was written, which tells a browser's copy from a newer one; None without it."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return None


def _unreadable(error: Exception, begun: float) -> dict[str, Any]:
    return {"error": str(error), "begun": begun, "steps": 0, "runs": []}


_OUTLINES: Remembered[dict[str, Any]] = Remembered()


def _outline(folder: Path) -> dict[str, Any]:
    """What a list shows of a tape."""
    try:
        tape = recording.read(folder)
    except (ValueError, PermissionError) as error:
        return _unreadable(error, (folder / TAPE).stat().st_mtime)
    scene, checkpoint = tape.scene, tape.provenance.get("checkpoint") or {}
    return {
        "begun": tape.begun,
        "scene": asdict(scene),
        "task": _task(scene.suite, scene.task),
        "instructions": tape.instructions,
        "checkpoint": checkpoint.get("name"),
        "steps": len(tape),
        "runs": tape.runs(),
        "human": sum(driver != DRIVERS[0] for driver in tape.drivers),
        "outcome": tape.outcome,
        "message": tape.message,
        "versions": changed(tape.versions, versions()),
    }


def _task(suite: str, task: int) -> str:
    """A task's own words; those of a suite that is not installed have none here."""
    try:
        return catalog.task(suite, task).instruction
    except ValueError:
        return f"{suite} {task}"
