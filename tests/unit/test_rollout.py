"""One episode without the page."""

import pytest

from studio.events import Outcome, SceneSpec
from studio.helm import PolicyAway
from studio.rollout import run_episode
from tests.unit.conftest import Drifter

SCENE = SceneSpec("libero_object", 0, 40)


class Away(Drifter):
    """Can't be reached for its first `times` plans."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def plan(self, obs, sampler, seed):
        if self.times:
            self.times -= 1
            raise PolicyAway("no server answers", 0.01)
        return super().plan(obs, sampler, seed)


def test_a_policy_that_is_away_is_told_of_once_and_waited_for(point_mass, capsys):
    episode = run_episode(point_mass, Away(3), SCENE)
    assert episode.end.outcome is Outcome.TIMEOUT and point_mass.steps == 40
    assert capsys.readouterr().err.split("\n").count("no server answers") == 1


def test_a_stop_while_the_policy_is_away_ends_the_waiting(point_mass):
    policy = Away(-1)
    with pytest.raises(InterruptedError, match="no server answers"):
        run_episode(point_mass, policy, SCENE, stop=lambda: policy.times < -3)
    assert point_mass.steps == 0
