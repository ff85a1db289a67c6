"""Spool: a list whose items lie on disk, for what a long episode has too much of to keep in memory.

The file has no name and no other reader: it is gone with the last list that uses it, however that
comes about.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Spool(Sequence, Generic[Item]):
    """Items are appended, and read as often as wanted, from any thread; those read are copies."""

    def __init__(self) -> None:
        name = "eb-vla-spool-"
        self._file = tempfile.TemporaryFile(prefix=name, buffering=0)  # noqa: SIM115, the last closes
        self._ends = array("q", [0])  # where each item ends, and the next one begins

    def append(self, item: Item) -> None:
        """Raises OSError when the disk is full; the spool is then as it was."""
        data = memoryview(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
        end = self._ends[-1]
        while data:
            written = os.pwrite(self._file.fileno(), data, end)
            data, end = data[written:], end + written
        self._ends.append(end)

    def so_far(self) -> Spool[Item]:
        """The items of now; what is appended later is not among them."""
        copy = object.__new__(Spool)
        copy._file, copy._ends = self._file, self._ends[:]
        return copy

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        begin, end = self._ends[index % len(self)], self._ends[index % len(self) + 1]
        return pickle.loads(os.pread(self._file.fileno(), end - begin, begin))
