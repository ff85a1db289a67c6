"""Which episodes of the scripted expert are kept, and why the others are not."""

from types import SimpleNamespace

import numpy as np
import pytest

from studio import demonstrate
from studio.demonstrate import HOLD_STEPS, Attempt, Verdict, record
from studio.events import SceneSpec

MAX_STEPS = 20


class Sim:
    """Solved after `solved` steps, and no longer after `lost`."""

    def __init__(self, solved, lost=99):
        self.solved, self.lost, self.steps = solved, lost, 0

    def load(self, scene):
        return SimpleNamespace(max_steps=MAX_STEPS)

    def step(self, action):
        self.steps += 1
        return SimpleNamespace(success=self.solved <= self.steps < self.lost)

    def versions(self):
        return {}


class Log:
    """Keeps the actions only."""

    def __init__(self, sim):
        self.actions = []

    def note(self, action, executed):
        self.actions.append(action)

    def demonstration(self, attributes):
        return self


def attempt(monkeypatch, sim, done, retries=0, regrasp=False):
    """An episode whose expert is done after `done` actions, with so many grasps repeated."""

    class Expert:
        def __init__(self, sim, rng):
            self.acted, self.retries = 0, retries

        @property
        def done(self):
            return self.acted > done

        def act(self):
            self.acted += 1
            return np.zeros(7)

    monkeypatch.setattr(demonstrate, "Expert", Expert)
    monkeypatch.setattr(demonstrate, "StepLog", Log)
    return record(sim, Attempt(SceneSpec(), 0.0, (0,), regrasp=regrasp))


def test_a_solved_task_is_kept_with_a_few_steps_at_rest(monkeypatch):
    verdict, demo = attempt(monkeypatch, Sim(solved=10), done=10)
    assert verdict is Verdict.KEPT and len(demo.actions) == 10 + HOLD_STEPS


@pytest.mark.parametrize(
    ("sim", "done", "retries", "expected"),
    [
        (Sim(solved=99), 10, 0, Verdict.FAILED),
        (Sim(solved=5, lost=13), 10, 0, Verdict.FAILED),  # it slipped away while the expert rested
        (Sim(solved=5), 10, 1, Verdict.REGRASPED),
        (Sim(solved=5), MAX_STEPS, 0, Verdict.SLOW),
        (Sim(solved=5), MAX_STEPS - HOLD_STEPS + 1, 0, Verdict.SLOW),  # no time to rest
        (Sim(solved=0), 0, 0, Verdict.UNNEEDED),
    ],
)
def test_what_is_no_demonstration(monkeypatch, sim, done, retries, expected):
    assert attempt(monkeypatch, sim, done, retries) == (expected, None)


def test_a_second_grasp_is_kept_where_it_is_asked_for(monkeypatch):
    verdict, demo = attempt(monkeypatch, Sim(solved=5), 10, retries=1, regrasp=True)
    assert verdict is Verdict.KEPT and demo is not None
