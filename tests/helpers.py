"""What several test modules need: the repository's root, a port, waiting, processes' ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> object:
    """What `condition` finds once it is true; a test that waits longer fails."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return found


def gone(pid: int) -> bool:
    """No such process, or one that only waits for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def complaint(capsys) -> str:
    """The one line that a command said on stderr."""
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1, text
    return text
