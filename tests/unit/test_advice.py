"""What the expert would have done: asked once per plan, never of another episode."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.config import SamplerConfig
from models.types import Observation
from studio.advice import Adviser
from studio.events import EpisodeEvent, SceneSpec
from studio.feed import Feed
from studio.sim.process import SimError


class Oracle:
    """A simulator that answers a question when it is asked for the third time."""

    def __init__(self):
        self.asked: list[tuple[int, str]] = []
        self.refuses = False

    def ask_expert(self, step, instruction, horizon):
        self.asked.append((step, instruction))
        self.waited = 0
        return len(self.asked)

    def expert_answer(self, ticket):
        assert ticket == len(self.asked)
        if self.refuses:
            raise SimError("the hand is at work on the stove")
        self.waited += 1
        actions = np.full((8, 7), 0.5, np.float32)
        return SimpleNamespace(actions=actions, phase="pick") if self.waited > 2 else None


@pytest.fixture
def oracle():
    return Oracle()


@pytest.fixture
def feed(drifter):
    feed = Feed()
    feed.on_episode(EpisodeEvent(SceneSpec(), "reach"))
    observation = Observation({}, np.zeros(8, np.float32), "reach")
    for step in (0, 8):
        feed.on_plan(step, drifter.plan(observation, SamplerConfig(), step))
    return feed


@pytest.fixture
def kept():
    return []


@pytest.fixture
def adviser(oracle, feed, kept):
    policy = SimpleNamespace(
        normalize=lambda actions: 2 * actions,
        energies=lambda observation, chunks: (chunks.mean((1, 2)), None),
    )
    return Adviser(oracle, policy, feed, lambda record, advice: kept.append((record, advice)))


def go_on() -> bool:
    return False


def test_an_answer_is_scored_kept_and_asked_for_once(adviser, oracle, feed, kept):
    record = feed.snapshot().plans[1]
    advice = adviser.ask(record)(go_on)
    assert (advice.energy, advice.phase, advice.actions[0, 0]) == (1.0, "pick", 0.5)
    assert adviser.ask(record)(go_on) is advice
    assert oracle.asked == [(8, "reach")]
    assert [(told is record, known is advice) for told, known in kept] == [(True, True)]


def test_two_plans_of_one_step_have_answers_of_their_own(adviser, oracle, feed, drifter):
    """The guard stopped the first, and a person typed other words."""
    observation = Observation({}, np.zeros(8, np.float32), "push")
    feed.on_plan(8, drifter.plan(observation, SamplerConfig(), 8))
    _, first, second = feed.snapshot().plans
    assert adviser.ask(first)(go_on) is not adviser.ask(second)(go_on)
    assert oracle.asked == [(8, "reach"), (8, "push")]


def test_no_answer_has_its_reason(adviser, oracle, feed, kept):
    oracle.refuses = True
    assert "stove" in adviser.ask(feed.snapshot().plans[0])(go_on)
    assert kept == []


def test_an_overtaken_question_is_left_and_may_be_asked_again(adviser, oracle, feed):
    record = feed.snapshot().plans[0]
    with pytest.raises(InterruptedError):
        adviser.ask(record)(lambda: True)
    assert adviser.ask(record)(go_on).phase == "pick"
    assert oracle.asked == 2 * [(0, "reach")]


def test_an_answer_that_comes_in_another_episode_does_not_count(adviser, oracle, feed, kept):
    answer = adviser.ask(feed.snapshot().plans[0])
    feed.on_episode(EpisodeEvent(SceneSpec(init=1), "reach"))
    assert "ended" in answer(go_on)
    assert kept == []
