"""Statistics of the evaluation."""

import json
from dataclasses import replace

import pytest

from studio.evaluate import (
    Trial,
    calibrate,
    for_other_goals,
    from_other_views,
    in_other_words,
    nominal,
    read_rows,
    table,
    wilson,
)
from studio.events import CameraPerturbation


@pytest.mark.parametrize(
    ("wins", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (45, 50, 0.78640, 0.95652)],
)
def test_wilson_interval(wins, trials, low, high):
    """Published values of the Wilson score interval."""
    assert wilson(wins, trials) == pytest.approx((low, high), abs=5e-5)


def test_a_cut_off_line_and_errors_are_not_results(tmp_path):
    path = tmp_path / "episodes.jsonl"
    rows = [{"outcome": "success"}, {"outcome": "error"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"outcome": "succ')
    assert read_rows(path) == [{"outcome": "success"}]


def test_errors_are_no_failed_episodes():
    rows = [
        {"suite": suite, "task": 0, "outcome": outcome}
        for suite in ("libero_object", "libero_goal")
        for outcome in ("success", "timeout", "error")
    ]
    lines = table(rows).splitlines()
    assert [line.count("| 1/2 |") for line in lines[2:]] == [1, 1, 1, 1]
    assert "**libero_object**" in lines[3] and "**libero_goal**" in lines[5]


def test_calibration_is_over_plans():
    calibration = calibrate([{"final_energy": [1.0, 2.0]}, {"final_energy": [3.0]}])
    assert (calibration.mu, calibration.sigma, calibration.episodes) == (2.0, 1.0, 2)
    with pytest.raises(ValueError):
        calibrate([])


def test_trials_change_one_thing():
    trials = nominal("libero_goal", range(10), [40, 41], seed=0)
    assert len(trials) == 20 and len({t.scene for t in trials}) == 20
    words = in_other_words(trials)
    assert [t.scene for t in words] == [t.scene for t in trials]
    assert all(t.instruction for t in words)
    goals = for_other_goals(trials)
    assert all(t.scene.goal not in (None, t.scene.task) for t in goals)
    assert [replace(t.scene, goal=None) for t in goals] == [t.scene for t in trials]
    with pytest.raises(ValueError, match="one another's goals"):
        for_other_goals(nominal("libero_spatial", [0], [40], seed=0))
    with pytest.raises(ValueError):
        nominal("libero_goal", [10], [40], seed=0)


def test_views_are_spread_over_tasks_and_a_longer_run_continues_a_shorter_one():
    trials = nominal("libero_object", range(10), range(40, 45), seed=0)
    few, more = from_other_views(trials, 20, range(1, 6)), from_other_views(trials, 40, range(1, 6))
    assert more[:20] == few
    assert sorted(t.scene.task for t in few) == sorted([*range(10)] * 2)
    assert all(t.camera != CameraPerturbation() for t in few)
    hard = from_other_views(trials, None, [5])
    assert {t.difficulty for t in hard} == {5}
    with pytest.raises(ValueError, match="no such views"):
        from_other_views(nominal("libero_90", [0], [0], seed=0), None, [1])


def test_a_trial_is_told_from_every_other():
    scene = nominal("libero_object", [0], [40], seed=0)[0].scene
    rows = [Trial(scene).row(), Trial(scene, instruction="x").row(),
            Trial(replace(scene, goal=1)).row(),
            Trial(scene, CameraPerturbation(orbit_vertical=5)).row()]  # fmt: skip
    assert len({json.dumps(row) for row in rows}) == 4
