"""What a page is sent of an episode that is longer than the feed's memory."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from models.config import SamplerConfig
from studio import feed as feeds
from studio import wire
from studio.events import Comparison, EpisodeEvent, Frame, SceneSpec
from studio.feed import Feed
from studio.server import CREDIT, PageLink
from studio.wheel import Wheel


class Socket:
    """Remembers what was sent."""

    def __init__(self):
        self.sent: list[dict] = []
        self.pictures: list[bytes] = []

    async def send_bytes(self, data: bytes) -> None:
        self.pictures.append(data)

    async def send_text(self, text: str) -> None:
        self.sent.append(json.loads(text))

    def take(self, kind: str, field: str) -> list:
        """`field` of the messages of a kind since the last look."""
        found = [message[field] for message in self.sent if message["type"] == kind]
        self.sent = [message for message in self.sent if message["type"] != kind]
        return found


@pytest.fixture
def feed(monkeypatch):
    monkeypatch.setattr(feeds, "MAX_PLANS", 10)
    monkeypatch.setattr(feeds, "MAX_COMPARISONS", 20)
    feed = Feed()
    feed.on_episode(EpisodeEvent(SceneSpec(), "reach"))
    return feed


def test_each_is_sent_once_and_the_newest_when_a_page_is_slow(feed, point_mass, drifter):
    plan = drifter.plan(point_mass.observe("reach"), SamplerConfig(), 0)
    socket, policy = Socket(), SimpleNamespace(current=object())

    def go_on(first: int, last: int) -> None:
        for number in range(first, last):
            feed.on_plan(8 * number, replace(plan))
            feed.on_comparison(Comparison(8 * number, 1.0, 2.0))

    async def read(link: PageLink) -> tuple[list[int], list[int]]:
        await link._send_history(feed.snapshot())
        return socket.take("plan", "index"), socket.take("comparison", "step")

    async def scenario() -> None:
        link = PageLink(None, SimpleNamespace(policy=policy, wheel=Wheel(), feed=feed), socket)
        go_on(0, 4)
        assert await read(link) == ([0, 1, 2, 3], [0, 8, 16, 24])
        assert await read(link) == ([], [])
        go_on(4, 16)
        steps = [8 * number for number in range(4, 16)]
        assert await read(link) == (list(range(6, 16)), steps)
        go_on(16, 66)
        plans, compared = await read(link)
        assert plans == list(range(56, 66)) and compared == [8 * n for n in range(46, 66)]
        feed.on_episode(EpisodeEvent(SceneSpec(), "reach"))
        go_on(0, 1)
        assert await read(link) == ([0], [0])

    asyncio.run(scenario())


def test_an_episode_of_another_checkpoint_begins_as_any_other(feed, monkeypatch):
    for name in ("describe", "calibration"):
        monkeypatch.setattr(f"studio.server.{name}", lambda policy: None)
    policy = SimpleNamespace(current=object())
    session = SimpleNamespace(policy=policy, wheel=Wheel(), feed=feed, name="s")
    socket = Socket()

    async def scenario() -> None:
        link = PageLink(SimpleNamespace(versions={}), session, socket)
        await link._hello()
        policy.current = object()
        feed.on_episode(EpisodeEvent(SceneSpec(), "reach"))
        await link._hello()

    asyncio.run(scenario())
    assert [message["type"] for message in socket.sent] == ["hello", "episode", "hello"]


def test_a_page_that_does_not_acknowledge_gets_no_more_pictures_and_then_the_newest(feed):
    session = SimpleNamespace(policy=SimpleNamespace(current=object()), wheel=Wheel(), feed=feed)
    socket = Socket()

    async def scenario() -> None:
        link = PageLink(None, session, socket)
        for number in range(5):
            feed.on_frame(Frame(number, {"agentview": b"%d" % number, "wrist": b"w"}, 0.0))
            await link._send_frame(feed.snapshot())
        assert len(socket.pictures) == CREDIT
        link._handle({"type": "ack"})
        await link._send_frame(feed.snapshot())
        await link._send_frame(feed.snapshot())  # the same picture
        newest = wire.frame_message(feed.snapshot().frame, feed.snapshot().episode, None)
        assert len(socket.pictures) == CREDIT + 1 and socket.pictures[-1] == newest
        feed.on_frame(Frame(5, {"agentview": b"5", "wrist": b"w"}, 0.0))
        feed.on_episode(EpisodeEvent(SceneSpec(), "reach"))
        link._handle({"type": "ack"})
        await link._send_frame(feed.snapshot())
        assert len(socket.pictures) == CREDIT + 1  # that one is not of this episode

    asyncio.run(scenario())
