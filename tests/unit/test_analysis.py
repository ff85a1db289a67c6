"""Questions about plans: the newest of each page and kind counts, and nobody waits for the old."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from models.config import SamplerConfig
from models.types import LandscapeSlice
from studio.analysis import AnalysisRequest, Analyst
from studio.feed import Feed
from tests.helpers import wait_for
from tests.unit.conftest import Drifter, PointMass


class Explorer:
    """A policy whose slices take until they are stopped or let through."""

    def __init__(self):
        self.begun, self.stopped = [], []
        self.open = threading.Event()

    def slice_2d(self, obs, centre, *, timestep, dims, span, grid, stop):
        self.begun.append(timestep)
        while not self.open.wait(0.005):
            if stop():
                self.stopped.append(timestep)
                raise InterruptedError
        axis = np.linspace(-span, span, grid)
        return LandscapeSlice(timestep, dims, axis, axis, np.ones((grid, grid)), centre)


@pytest.fixture
def asked():
    """`ask(stamp, page)` and the answers; the stamp is the timestep that is asked about."""
    feed, explorer, answers = Feed(), Explorer(), []
    feed.on_plan(0, Drifter().plan(PointMass().observe("reach"), SamplerConfig(), 0))
    analyst = Analyst(explorer, feed, SimpleNamespace(ask=lambda record: lambda stop: "unknown"))

    def ask(stamp, page=1, plan=0, kind="slice"):
        request = AnalysisRequest(kind, stamp, plan, timestep=stamp, grid=2)
        analyst.submit(request, answers.append, page)

    yield SimpleNamespace(ask=ask, answers=answers, explorer=explorer, analyst=analyst)
    analyst.close()


def stamps(asked):
    return [answer["stamp"] for answer in asked.answers]


def test_a_newer_question_stops_the_one_in_hand_and_drops_the_one_that_waits(asked):
    asked.ask(1)
    wait_for(lambda: asked.explorer.begun == [1])
    asked.ask(2)
    wait_for(lambda: asked.explorer.begun == [1, 2])
    asked.ask(3)
    wait_for(lambda: asked.explorer.begun[-1] == 3)
    asked.explorer.open.set()
    wait_for(lambda: asked.answers)
    assert stamps(asked) == [3] and asked.explorer.stopped == [1, 2]
    assert "figure" in asked.answers[0] and asked.answers[0]["expert"]["text"] == "unknown"


def test_another_page_s_question_waits_its_turn(asked):
    asked.ask(1, page=1)
    wait_for(lambda: asked.explorer.begun == [1])
    asked.ask(2, page=2)
    asked.ask(3, page=2)
    asked.explorer.open.set()
    wait_for(lambda: len(asked.answers) == 2)
    assert stamps(asked) == [1, 3] and asked.explorer.begun == [1, 3]


def test_what_cannot_be_answered_is_said_and_the_next_is_answered(asked):
    asked.explorer.open.set()
    asked.ask(1, plan=7)
    wait_for(lambda: asked.answers)
    assert "not at hand any more" in asked.answers[0]["error"]
    asked.ask(2)
    wait_for(lambda: len(asked.answers) == 2)
    assert stamps(asked) == [1, 2] and "figure" in asked.answers[1]


def test_the_end_of_a_session_stops_what_is_in_hand(asked):
    asked.ask(1)
    wait_for(lambda: asked.explorer.begun == [1])
    asked.analyst.close()
    wait_for(lambda: asked.explorer.stopped == [1])
    assert asked.answers == []
