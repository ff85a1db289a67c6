"""Two pages, one arm: who drives."""

import asyncio
from types import SimpleNamespace

import pytest

from studio.events import Drive, Pause, SetDriver
from studio.server import PageLink
from studio.teleop import DriveInput
from studio.wheel import ASKS_S, FREE_S, Wheel, WheelState


def pages():
    changes = []
    wheel = Wheel(lambda: changes.append(wheel.state))
    return wheel, wheel.join(), wheel.join(), changes


def test_the_first_that_drives_has_it():
    wheel, one, two, changes = pages()
    assert wheel.take(one, 0.0)
    assert not wheel.take(two, 1.0) and wheel.take(one, 2.0)
    assert changes == [WheelState(one)]


def test_the_driver_hands_it_over():
    wheel, one, two, _ = pages()
    wheel.take(one, 0.0)
    wheel.ask(two, 1.0)
    assert wheel.state == WheelState(one, two)
    wheel.grant(two, 1.5)  # not hers to give
    assert wheel.state.driver == one
    wheel.grant(one, 2.0)
    assert wheel.state == WheelState(two)
    assert not wheel.take(one, 2.1)


def test_an_idle_driver_gives_way_to_who_asks():
    wheel, one, two, _ = pages()
    wheel.take(one, 0.0)
    wheel.ask(two, FREE_S - 0.1)
    assert wheel.state.driver == one
    wheel.ask(two, FREE_S + 0.1)
    assert wheel.state == WheelState(two)


def test_a_request_that_is_not_repeated_is_over():
    wheel, one, two, _ = pages()
    wheel.take(one, 0.0)
    wheel.ask(two, 0.0)
    wheel.take(one, ASKS_S + 0.1)
    assert wheel.state == WheelState(one)


def test_a_page_that_leaves_drops_it():
    wheel, one, two, _ = pages()
    wheel.take(one, 0.0)
    wheel.ask(two, 0.0)
    wheel.leave(one)
    assert wheel.state == WheelState(None, two)
    assert wheel.take(two, 0.1)
    wheel.let_go()
    assert wheel.state == WheelState()


def test_a_stick_that_is_held_after_handing_over_does_not_keep_the_wheel():
    sent, wheel = [], Wheel()
    policy = SimpleNamespace(current=object())
    session = SimpleNamespace(policy=policy, wheel=wheel, driver="policy", submit=sent.append)

    async def scenario() -> None:
        one, two = (PageLink(SimpleNamespace(check=id), session, None) for _ in range(2))
        one._steer(SetDriver("human"))
        one._steer(Drive(DriveInput(1, x=1.0)))
        with pytest.raises(ValueError, match="another tab"):
            two._steer(Pause())
        one._steer(SetDriver("policy"))
        one._steer(Drive(DriveInput(2, x=1.0)))  # the loop may not have heard it yet
        two._steer(Pause())

    asyncio.run(scenario())
    assert sent[-1] == Pause() and wheel.state == WheelState()
