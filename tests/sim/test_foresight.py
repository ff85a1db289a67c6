"""What the expert would do: asked at any moment, without a trace in the running episode."""

import time

import numpy as np
import pytest

from studio.events import SceneSpec
from studio.sim import foresight
from studio.sim.expert import Expert
from studio.sim.foresight import ExpertChunk, Foresight, expert_chunk
from studio.sim.libero_sim import LiberoSim
from studio.sim.process import SimError, SimProcess
from tests.helpers import wait_for

PICK = SceneSpec("libero_object", 0, 40)
DRAWER = SceneSpec("libero_goal", 0, 40)
HORIZON = 8
SOUP = "pick up the alphabet soup and place it in the basket"
BUTTER = "pick up the butter and place it in the basket"


@pytest.fixture(scope="module")
def sim():
    sim = LiberoSim()
    yield sim
    sim.close()


def episode(sim, scene):
    """The expert's actions, and a moment (snapshot, action before it) at every 8th of them."""
    sim.load(scene)
    expert, actions, moments = Expert(sim), [np.zeros(7)], []
    while True:
        if len(actions) % HORIZON == 1:
            moments.append((sim.snapshot(), actions[-1]))
        actions.append(expert.act())
        if sim.step(actions[-1]).success:
            return np.array(actions[1:]), moments


def answers(process, step, instruction=SOUP):
    ticket = process.ask_expert(step, instruction, HORIZON)
    return wait_for(lambda: process.expert_answer(ticket), 60)


def test_a_restored_snapshot_goes_on_bit_for_bit(sim):
    actions, moments = episode(sim, PICK)
    sim.restore(moments[2][0])
    for action in actions[2 * HORIZON : 9 * HORIZON]:  # with the grasp, where the fingers close
        sim.step(action)
    np.testing.assert_array_equal(sim.snapshot(), moments[9][0])
    with pytest.raises(ValueError, match="numbers"):
        sim.restore(moments[0][0][:-1])


def test_it_says_what_the_expert_does_from_start_to_carrying(sim):
    actions, moments = episode(sim, PICK)
    differences, phases = [], []
    for i, (snapshot, before) in enumerate(moments[:-2]):  # letting go is a matter of one step
        sim.restore(snapshot)
        chunk = expert_chunk(sim, before, HORIZON)
        expected = actions[i * HORIZON : (i + 1) * HORIZON]
        differences.append(np.abs(chunk.actions - expected).mean())
        phases.append(chunk.phase.split()[0])
    assert max(differences) < 0.1 and np.median(differences) < 0.02
    assert phases == sorted(phases) and {"pick", "place"} == set(phases)


def test_it_has_no_answer_in_the_middle_of_a_pull(sim):
    _, moments = episode(sim, DRAWER)
    sim.restore(moments[0][0])
    assert expert_chunk(sim, moments[0][1], HORIZON).phase.startswith("open")
    sim.restore(moments[-1][0])
    with pytest.raises(ValueError, match="at work on the wooden_cabinet"):
        expert_chunk(sim, moments[-1][1], HORIZON)


def test_asking_leaves_the_episode_as_it_is():
    action, ends = np.array([0.3, 0.1, -0.2, 0, 0, 0, -1.0]), []
    with SimProcess() as process:
        for asked in (False, True):
            process.load(PICK)
            process.observe()
            for step in range(24):
                ticket = process.ask_expert(0, SOUP, HORIZON) if asked and step % 6 == 0 else None
                process.step(action)
                if ticket is not None:
                    process.expert_answer(ticket)
            ends.append(process.get_state())
        np.testing.assert_array_equal(*ends)
        first = answers(process, 0)
        assert first.actions.shape == (HORIZON, 7) and first.phase.startswith("pick")
        np.testing.assert_array_equal(answers(process, 0).actions, first.actions)
        with pytest.raises(SimError, match="did not look at step 5"):
            process.ask_expert(5, SOUP, HORIZON)
        process.load(PICK)
        with pytest.raises(SimError, match="did not look at step 0"):
            process.ask_expert(0, SOUP, HORIZON)


def test_it_goes_for_what_was_asked_at_the_time():
    with SimProcess() as process:
        process.load(PICK)
        process.observe(SOUP)
        process.ask(BUTTER)
        process.observe(BUTTER)  # at the same control step
        phases = [answers(process, 0, words).phase for words in (SOUP, BUTTER)]
        assert phases == ["pick alphabet_soup_1", "pick butter_1"]


def test_an_answer_may_take_long_but_no_more_than_so_much_computing(sim, monkeypatch):
    def slow(*_):
        time.sleep(1.5)
        return ExpertChunk(np.zeros((HORIZON, 7)), "pick")

    def endless(*_):
        while True:
            pass

    def answer(expert):
        monkeypatch.setattr(foresight, "expert_chunk", expert)
        ticket = asked.ask(0, SOUP, HORIZON)
        return wait_for(lambda: asked.answer(ticket), 60)

    monkeypatch.setattr(foresight, "LIMIT_S", 1)
    monkeypatch.setattr(foresight, "HUNG", 1000)
    sim.load(PICK)
    asked = Foresight(sim)
    asked.note(0, SOUP, np.zeros(7))
    assert answer(slow).phase == "pick"
    with pytest.raises(ValueError, match="in time"):
        answer(endless)
