"""When the next control step is due, and whether it is worth a picture."""

from __future__ import annotations

import time
from collections import deque

CONTROL_HZ = 20  # LIBERO's control steps a second
MAX_HZ = 200.0
MAX_DEBT_S = 0.25  # what a late loop makes up for (a plan's time), so that the mean rate holds
FRAME_PERIOD_S = 0.045  # people see at most ~22 frames a second,
LATE_FRAME_PERIOD_S = 0.12  # and at least 8 while the loop is behind


class Pace:
    """Keeps the time of one loop."""

    def __init__(self) -> None:
        self._next_step = 0.0  # monotonic time of the next control step
        self._last_frame = 0.0
        self._recent: deque[float] = deque(maxlen=24)  # monotonic times of the latest steps

    def restart(self) -> None:
        """Nothing is owed: the next step is due now."""
        self._next_step = time.monotonic()
        self._recent.clear()

    def wait(self) -> float:
        """Seconds until the next step is due."""
        return max(0.0, self._next_step - time.monotonic())

    def count(self, began: float, drawn: bool) -> None:
        """A step that began then was carried out, with or without a picture."""
        self._recent.append(time.monotonic())
        if drawn:
            self._last_frame = began

    def stepped(self, hz: float) -> float:
        """After a step at `hz` (0: as fast as can be): seconds until the next one is due."""
        period = 1.0 / min(hz, MAX_HZ) if hz > 0 else 0.0
        self._next_step = max(self._next_step + period, time.monotonic() - MAX_DEBT_S)
        return self.wait()

    def frame_is_due(self, now: float, hz: float) -> bool:
        """Pictures give way to control steps when the machine can't do both."""
        behind = hz > 0 and now - self._next_step > 1.0 / hz
        return now - self._last_frame >= (LATE_FRAME_PERIOD_S if behind else FRAME_PERIOD_S)

    @property
    def measured_hz(self) -> float:
        """Steps a second of late."""
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / (self._recent[-1] - self._recent[0])
