"""The rows of evaluation runs, kept between looks: of a run that goes on only what is new is read.

There is one entry per folder, however many there are. A row is the same object in every look, so
old lists of rows cost next to nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import results

Row = Mapping[str, Any]
FILES = (results.JOURNAL, results.TABLE, results.SETTINGS)
_runs: dict[Path, _Run] = {}
_lock = threading.Lock()


def run_rows(folder: Path) -> list[Row]:
    """The finished episodes of a run, of the checkpoint that it is of, each with its `run`.

    Raises ValueError, naming the file, when the results are cut off or of another schema.
    """
    with _lock:
        if folder.is_dir():
            return _runs.setdefault(folder, _Run()).look(folder)
        _runs.pop(folder, None)
        return []


class _Run:
    """A folder as it was at the last look."""

    def __init__(self) -> None:
        self._files: list[tuple[int, ...]] = [()] * len(FILES)
        self._read = 0  # bytes of the journal
        self._episodes: dict[str, Row] = {}
        self._rows: list[Row] = []

    def look(self, folder: Path) -> list[Row]:
        """The rows as they are now."""
        files = [_stamp(folder / name) for name in FILES]
        if files != self._files:
            if not self._grows(files[0]):
                self._read, self._episodes = 0, {}
            self._files[0] = ()  # until it has been read
            more, self._read = results.read_more(folder, self._read)
            self._episodes |= {key: row | {"run": folder.name} for key, row in more.items()}
            self._rows = list(self._episodes.values())
            if "sha256" in (settings := results.read_settings(folder)):
                self._rows = results.of_checkpoint(self._rows, settings["sha256"])
            self._files = files
        return self._rows

    def _grows(self, journal: tuple[int, ...]) -> bool:
        """Whether the journal is the same file as before, and none of what was read is gone."""
        return bool(journal) and journal[:1] == self._files[0][:1] and journal[1] >= self._read


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes with the file: which one it is, its size, its time; () of none."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
