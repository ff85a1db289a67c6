"""Who holds the wheel: of the pages of one session, one drives and the others watch.

A page takes the wheel with its first driving request. Another one may ask for it: the driver sees
that and hands it over, or it changes hands by itself once the driver has done nothing for a while
or is gone. An asking page repeats its request, so that one which went away asks no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

FREE_S = 10.0  # a driver that did nothing for so long gives way to whoever asks
ASKS_S = 3.0  # how long a request counts


@dataclass(frozen=True, slots=True)
class WheelState:
    """Page numbers: who drives, and who asks to; None for nobody."""

    driver: int | None = None
    asking: int | None = None


class Wheel:
    """See the module docstring. Thread-safe; times are monotonic seconds."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called whenever the state is another."""
        self._changed = changed
        self._lock = threading.Lock()
        self._pages = 0
        self._used = self._asked = float("-inf")
        self.state = WheelState()

    def join(self) -> int:
        """Another page: its number."""
        with self._lock:
            self._pages += 1
            return self._pages

    def take(self, page: int, now: float) -> bool:
        """Drive with this page, if the wheel is its own or free; True if it does."""
        with self._lock:
            mine = self.state.driver in (None, page)
            if mine:
                self._used = now
                self._set(page, self._asking(now))
        return mine

    def ask(self, page: int, now: float) -> None:
        """Wish for the wheel; repeated until the wish is granted or given up."""
        with self._lock:
            free = self.state.driver is None or now - self._used > FREE_S
            if free:
                self._used = now
            else:
                self._asked = now
            self._set(*((page, None) if free else (self.state.driver, page)))

    def grant(self, page: int, now: float) -> None:
        """The driver hands the wheel over to who asks, if somebody still does."""
        with self._lock:
            if self.state.driver == page:
                self._used = now
                self._set(self._asking(now), None)

    def leave(self, page: int) -> None:
        """A page is gone."""
        with self._lock:
            driver, asking = self.state.driver, self.state.asking
            self._set(None if driver == page else driver, None if asking == page else asking)

    def let_go(self) -> None:
        """Nobody drives by hand any more."""
        with self._lock:
            self._set(None, None)

    def _asking(self, now: float) -> int | None:
        return self.state.asking if now - self._asked < ASKS_S else None

    def _set(self, driver: int | None, asking: int | None) -> None:
        state = WheelState(driver, asking if asking != driver else None)
        if state != self.state:
            self.state = state
            self._changed()
