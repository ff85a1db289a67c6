"""What an evaluation runs."""

import json
from dataclasses import replace

import pytest

from studio.evaluate import make_trials, parse_args
from studio.events import CameraPerturbation, Perturbation
from studio.trial import Trial, key_of
from studio.trials import for_other_goals, from_other_views, in_other_words, nominal


def test_trials_change_one_thing():
    trials = nominal("libero_goal", range(10), [40, 41])
    assert len(trials) == 20 and len({t.scene for t in trials}) == 20
    words = in_other_words(trials)
    assert [t.scene for t in words] == [t.scene for t in trials]
    assert all(t.instruction for t in words)
    goals = for_other_goals(trials)
    assert all(t.scene.goal not in (None, t.scene.task) for t in goals)
    assert [replace(t.scene, goal=None) for t in goals] == [t.scene for t in trials]
    with pytest.raises(ValueError, match="one another's goals"):
        for_other_goals(nominal("libero_spatial", [0], [40]))
    with pytest.raises(ValueError):
        nominal("libero_goal", [10], [40])


def test_views_are_spread_over_tasks_and_a_longer_run_continues_a_shorter_one():
    trials = nominal("libero_object", range(10), range(40, 45))
    few, more = from_other_views(trials, 20, range(1, 6)), from_other_views(trials, 40, range(1, 6))
    assert more[:20] == few
    assert sorted(t.scene.task for t in few) == sorted([*range(10)] * 2)
    assert not any(t.perturbation.nominal for t in few)
    assert {t.scene for t in more} <= {t.scene for t in trials}  # each has its nominal twin
    hard = from_other_views(trials, None, [5])
    assert {t.difficulty for t in hard} == {5}
    with pytest.raises(ValueError, match="no such views"):
        from_other_views(nominal("libero_90", [0], [0]), None, [1])


def test_a_trial_is_told_from_every_other():
    scene = nominal("libero_object", [0], [40])[0].scene
    trials = [
        Trial(scene),
        Trial(scene, instruction="x"),
        Trial(replace(scene, goal=1)),
        Trial(scene, perturbation=Perturbation(CameraPerturbation(orbit_vertical=5))),
    ]
    assert len({t.key for t in trials}) == 4
    stored = json.loads(json.dumps(trials[3].row()))
    assert key_of({**stored, "outcome": "success"}) == trials[3].key


def asked(*options):
    return make_trials(parse_args(["--out", "x", *options]))


def test_few_episodes_are_spread_over_suites_and_tasks():
    trials = asked("--suite", "libero_object,libero_goal", "--episodes", "20")
    assert [(t.scene.suite, t.scene.task) for t in trials] == [
        (suite, task) for suite in ("libero_object", "libero_goal") for task in range(10)
    ]
    assert {t.scene.init for t in trials} == {40}
    assert len(asked("--suite", "libero_90", "--inits", "40")) == 90
    assert {t.kind for t in asked("--perturb", "camera", "--views", "5")} == {"camera"}
    with pytest.raises(ValueError):
        asked("--tasks", "12")
