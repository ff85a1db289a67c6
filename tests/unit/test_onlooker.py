"""What the policy thinks of a person's chunks, on a point mass."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from studio.events import Drive, LoadScene, Reset, Run, SceneSpec, SetAssists, SetDriver
from studio.feed import Feed
from studio.helm import PolicyAway
from studio.loop import ControlLoop
from studio.onlooker import Onlooker
from studio.recorder import Recorder, event_lines
from studio.teleop import Assists, DriveInput
from tests.helpers import wait_for
from tests.unit.conftest import Drifter


class Judge(Drifter):
    """The energy of a chunk is the mean of its forward action."""

    config = SimpleNamespace(horizon=8)
    away = 0  # so many calls from now on

    def normalize(self, actions):
        return actions

    def energies(self, obs, chunks):
        if self.away:
            self.away -= 1
            raise PolicyAway("not now", 1.0)
        return chunks[:, :, 0].mean(1), chunks[:, :, 0]


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def watched(point_mass, judge, monkeypatch):
    monkeypatch.setattr("studio.teleop.STALE_S", math.inf)  # however slow the test is
    feed, recorder = Feed(), Recorder({})

    def tell(comparison):
        feed.on_comparison(comparison)
        recorder.on_comparison(comparison)

    onlooker = Onlooker(point_mass, judge, tell)
    loop = ControlLoop(point_mass, judge, [feed, recorder, onlooker], hz=0)
    loop.apply(SetAssists(Assists(workspace=False)))
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(SetDriver("human"))
    loop.apply(Run())
    return SimpleNamespace(loop=loop, feed=feed, recorder=recorder)


def push(watched, steps):
    for _ in range(steps):
        watched.loop.apply(Drive(DriveInput(1, x=1.0, speed=0.5)))
        watched.loop.tick()


def comparisons(watched, count):
    wait_for(lambda: len(watched.feed.snapshot().comparisons) >= count)
    return watched.feed.snapshot().comparisons


def test_a_chunk_is_weighed_beside_the_policys(watched):
    push(watched, 9)
    (first,) = comparisons(watched, 1)
    assert (first.step, first.human) == (1, pytest.approx(0.5))
    assert first.policy == pytest.approx(5.1)  # the drifter's first plan
    rows = [row for row in event_lines(watched.recorder.episode()) if row["event"] == "comparison"]
    assert rows == [
        {"event": "comparison", "step": 1, "human": first.human, "policy": first.policy}
    ]


def test_an_intervention_shorter_than_a_chunk_is_not(watched):
    push(watched, 7)
    watched.loop.apply(SetDriver("policy"))
    watched.loop.tick()
    watched.loop.apply(SetDriver("human"))
    push(watched, 9)
    (only,) = comparisons(watched, 1)
    assert only.step == 9


def test_an_episodes_comparisons_end_with_it(watched):
    push(watched, 9)
    comparisons(watched, 1)
    watched.loop.apply(Reset())
    assert watched.feed.snapshot().comparisons == ()


def test_a_policy_that_is_away_is_left_out(watched, judge):
    judge.away = 1
    push(watched, 9)
    for _ in range(200):  # the thread of the first ends in its own time
        push(watched, 8)
        if watched.feed.snapshot().comparisons:
            break
    (first, *_) = comparisons(watched, 1)
    assert first.step > 1 and np.isfinite(first.human)
