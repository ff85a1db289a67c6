"""Which pages watch which session, without a simulator."""

from threading import Barrier
from types import SimpleNamespace

import pytest

from studio.session import Session, SessionManager, SessionOptions

TOKEN = "1" * 32


@pytest.mark.parametrize("name", ["linger_s", "idle_s"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_session_lives_for_some_time(name, seconds):
    with pytest.raises(ValueError, match="must be positive"):
        SessionOptions(**{name: seconds})


def test_a_page_that_closes_late_leaves_the_next_session_of_its_tab_alone(monkeypatch):
    def opened(token, *_):
        return SimpleNamespace(token=token, watchers=0, close=lambda: None)

    monkeypatch.setattr(Session, "open", opened)
    manager = SessionManager(None, {}, SessionOptions())
    old = manager.attach(TOKEN)
    manager._drop(lambda session: True)  # it had rested for long
    new = manager.attach(TOKEN)
    manager.detach(old)
    assert (old.watchers, new.watchers) == (0, 1)
    manager.close()


def test_sessions_end_together(monkeypatch):
    """Each may wait for its simulator: none of them waits for another."""
    both, ended = Barrier(2), []

    def opened(token, *_):
        return SimpleNamespace(token=token, close=lambda: ended.append(both.wait(10)))

    monkeypatch.setattr(Session, "open", opened)
    manager = SessionManager(None, {}, SessionOptions())
    for digit in "12":
        manager.attach(digit * 32)
    manager.close()
    assert sorted(ended) == [0, 1]
