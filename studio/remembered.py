"""What was read from files, remembered until they change: who asks again pays for news alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


def stamp(*files: Path) -> tuple[tuple[int, int], ...]:
    """Sizes and times of files, others once one of them is written. Raises OSError."""
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in map(Path.stat, files))


class Remembered(Generic[T]):
    """One answer for each key, the latest: it is made again when its stamp is another.

    What can't be made (`make` raises) is tried again each time. Thread-safe.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Hashable, T]] = {}

    def get(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """The answer of `key` at `stamp`."""
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = self._known[key] = (stamp, make())
        return known[1]
