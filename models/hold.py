"""One writer per folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises ValueError when another one writes there.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / LOCK
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except BlockingIOError:
            mine = False
        if not mine:  # or it was another's, who has just taken it away
            raise ValueError(f"{out}: another run writes here; stop it or choose another --out")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(file: Path) -> bool:
    """Whether somebody holds an exclusive lock on `file`. Those who look share theirs.

    A file that is not there, or can't be read, is held by nobody.
    """
    try:
        with file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
