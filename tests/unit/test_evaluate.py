"""Statistics of the evaluation."""

import json

import pytest

from studio.evaluate import calibrate, parse_range, read_rows, table, wilson


@pytest.mark.parametrize(
    ("wins", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (45, 50, 0.78640, 0.95652)],
)
def test_wilson_interval(wins, trials, low, high):
    """Published values of the Wilson score interval."""
    assert wilson(wins, trials) == pytest.approx((low, high), abs=5e-5)


def test_ranges():
    assert parse_range("40-42,7") == [40, 41, 42, 7]
    with pytest.raises(ValueError):
        parse_range("a-b")


def test_a_cut_off_line_and_errors_are_not_results(tmp_path):
    path = tmp_path / "episodes.jsonl"
    rows = [{"outcome": "success"}, {"outcome": "error"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"outcome": "succ')
    assert read_rows(path) == [{"outcome": "success"}]


def test_errors_are_no_failed_episodes():
    rows = [{"task": 0, "outcome": outcome} for outcome in ("success", "timeout", "error")]
    assert "| 1/2 |" in table(rows, "libero_object")


def test_calibration_is_over_plans():
    calibration = calibrate([{"final_energy": [1.0, 2.0]}, {"final_energy": [3.0]}])
    assert (calibration.mu, calibration.sigma, calibration.episodes) == (2.0, 1.0, 2)
    with pytest.raises(ValueError):
        calibrate([])
