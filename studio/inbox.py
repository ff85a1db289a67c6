"""Commands on their way to a control loop: put in by any thread, taken out by the loop's."""

from __future__ import annotations

import queue

from studio.events import Command

MOST = 1000  # commands that wait; a page sends at most some fifty a second


class Inbox:
    """First in, first out, and bounded. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Command | None] = queue.Queue()
        self.closed = False

    def put(self, command: Command) -> None:
        """Raises ValueError when too many wait already."""
        if self._waiting.qsize() >= MOST:
            raise ValueError("too many requests wait already; give the scene a moment")
        self._waiting.put(command)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._waiting.empty()

    def close(self) -> None:
        """What still waits is not taken any more; whoever waits for a command wakes up."""
        self.closed = True
        self._waiting.put(None)

    def take(self, timeout: float) -> Command | None:
        """The next command; None when none comes within `timeout` s, or it is closed."""
        try:
            command = self._waiting.get(block=timeout > 0, timeout=timeout)
        except queue.Empty:
            return None
        return None if self.closed else command
