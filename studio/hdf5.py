"""HDF5 files that are whole or not there, whatever happens to the disk meanwhile."""

from __future__ import annotations

import fcntl
import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import h5py

from models.hold import is_held

YOUNG_S = 10.0  # a file that is younger may not be held yet by its writer


class Draft(h5py.File):
    """A file in the making. Whoever writes much of it looks with `check` now and then."""

    def __init__(self, content: _Patient, path: Path) -> None:
        """`path`: what it is going to be."""
        super().__init__(content, "w")
        self._content, self._path = content, path

    def check(self) -> None:
        """Raises OSError once something did not fit on the disk."""
        if error := self._content.error:
            raise OSError(error.errno, error.strerror, str(self._path))


@contextmanager
def whole_hdf5(path: Path) -> Iterator[Draft]:
    """A file that appears under `path` only once it is complete. Raises OSError on a full disk.

    What writers of it left when they were killed is swept away first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > YOUNG_S and not is_held(left):
                left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _Patient(temporary, "w+") as content:
            fcntl.flock(content, fcntl.LOCK_EX)  # goes with this process, however it ends
            with Draft(content, path) as file:
                yield file
            file.check()
            os.fsync(content.fileno())  # a power cut leaves no empty file under its final name
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Patient(FileIO):
    """A file that takes everything, as HDF5 crashes its process when a disk fills up.

    What the disk has no room for stays in memory, and `error` says so.
    """

    error: OSError | None = None

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self._rest: list[tuple[int, bytes]] = []  # where it belongs, and what

    def write(self, data: memoryview) -> int:
        """All of it, wherever."""
        begin, whole = self.tell(), memoryview(data).cast("B")
        if not self._fits(whole):
            self._rest.append((begin, bytes(whole)))
        self.seek(begin + len(whole))
        return len(whole)

    def readinto(self, buffer: memoryview) -> int:
        """What was written there last."""
        begin, whole = self.tell(), memoryview(buffer).cast("B")
        super().readinto(whole)
        for at, data in self._rest:
            low, high = max(begin, at), min(begin + len(whole), at + len(data))
            if low < high:
                whole[low - begin : high - begin] = data[low - at : high - at]
        self.seek(begin + len(whole))
        return len(whole)

    def truncate(self, size: int | None = None) -> int:
        """The file's new size."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def _fits(self, data: memoryview) -> bool:
        if self.error is None:
            try:
                while data:
                    data = data[super().write(data) :]
            except OSError as error:
                self.error = error
        return self.error is None
