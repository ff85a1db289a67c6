"""Rows of an evaluation on disk: nothing finished is lost, nothing counts twice."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.hold import hold
from studio import evaluate, results
from studio.evaluate import calibrate
from studio.scores import SCORES
from studio.trial import key_of
from studio.trials import nominal
from tests.unit.conftest import room_for


def row_of(trial, outcome="success", **more):
    plans = {name: [1.0, 2.0] for name in SCORES}
    return {
        **trial.row(), "outcome": outcome, "steps": 16, "message": "", "checkpoint": "abc",
        "versions": {"mujoco": "3.3.2"}, "step": [0, 8], "latency_s": [0.25, 0.5],
        "timestep_energies": [[1.0] * 8, [2.0] * 8], **plans, **more,
    }  # fmt: skip


TRIALS = nominal("libero_object", range(4), [40])


class Fleet:
    """Ends each trial as told, by task; an exception is a kill."""

    def __init__(self, *outcomes):
        self.outcomes, self.ran = outcomes, []

    def run(self, trials, stop):
        for trial in trials:
            outcome = self.outcomes[trial.scene.task]
            if isinstance(outcome, BaseException):
                raise outcome
            self.ran.append(trial.scene.task)
            yield row_of(trial, outcome) if outcome != "error" else results.error_row(trial, "dead")


def run(fleet, folder, sha="abc"):
    return evaluate.run(fleet, sha, TRIALS, folder, lambda: False)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    first = Fleet("success", "timeout", KeyboardInterrupt(), "success")
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path)
    assert len(results.read_table(tmp_path / results.TABLE)) == 2
    second = Fleet(None, None, "success", "success")
    rows = run(second, tmp_path)
    assert second.ran == [2, 3]
    assert [row["outcome"] for row in rows] == ["success", "timeout", "success", "success"]
    assert [key_of(row) for row in rows] == [trial.key for trial in TRIALS]


def test_a_crash_is_run_again_and_is_no_failed_episode(tmp_path):
    run(Fleet("success", "error", "error", "success"), tmp_path)
    assert [row["task"] for row in results.read_rows(tmp_path)] == [0, 3]
    again = Fleet(None, "timeout", "error", None)
    run(again, tmp_path)
    assert again.ran == [1, 2]
    assert [row["task"] for row in results.read_rows(tmp_path)] == [0, 3, 1]


def test_a_full_disk_costs_the_episode_that_found_it_full(tmp_path):
    outcomes = ["success"] * len(TRIALS)
    line = len(json.dumps(row_of(TRIALS[0]))) + 1
    with room_for(line + line // 2), pytest.raises(OSError, match="large"):
        run(Fleet(*outcomes), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [results.JOURNAL]
    second = Fleet(*outcomes)
    assert len(run(second, tmp_path)) == len(TRIALS) and second.ran == [1, 2, 3]
    assert len(results.read_table(tmp_path / results.TABLE)) == len(TRIALS)


def test_another_checkpoint_s_episodes_are_no_results_of_this_one(tmp_path):
    run(Fleet(*["success"] * 4), tmp_path)
    other = Fleet(*["timeout"] * 4)
    run(other, tmp_path, sha="def")
    assert other.ran == [0, 1, 2, 3]


def test_a_line_that_a_kill_cut_off_is_dropped_and_not_written_onto(tmp_path):
    with results.Journal(tmp_path) as journal:
        journal.write(row_of(TRIALS[0]))
    path = tmp_path / results.JOURNAL
    path.write_bytes(path.read_bytes() + b'{"suite": "libero_ob')
    with results.Journal(tmp_path) as journal:
        journal.write(row_of(TRIALS[1]))
    assert [row["task"] for row in results.read_rows(tmp_path)] == [0, 1]


def test_the_table_holds_what_the_journal_does(tmp_path):
    run(Fleet(*["success"] * 4), tmp_path)
    journal = results.read_rows(tmp_path)
    assert results.read_table(tmp_path / results.TABLE) == journal
    (tmp_path / results.JOURNAL).unlink()
    assert results.read_rows(tmp_path) == journal
    assert results.read_rows(tmp_path / "nothing") == []


def test_a_score_that_came_later_is_none_in_older_results(tmp_path):
    row = row_of(TRIALS[0])
    table = results.write_table(tmp_path, [row])
    pq.write_table(pq.read_table(table).drop_columns("grad_norm"), table)
    with results.Journal(tmp_path / "journal") as journal:
        journal.write({name: value for name, value in row.items() if name != "grad_norm"})
    for rows in (results.read_table(table), results.read_rows(tmp_path / "journal")):
        assert rows[0]["grad_norm"] == [None, None] and rows[0]["final_energy"] == [1.0, 2.0]


def test_broken_tables_are_told(tmp_path):
    path = results.write_table(tmp_path, [row_of(TRIALS[0])])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"episodes\.parquet: cut off"):
        results.read_rows(tmp_path)
    pq.write_table(pa.table({"suite": ["a"]}), path)
    with pytest.raises(ValueError, match="another schema, without"):
        results.read_rows(tmp_path)
    (tmp_path / results.JOURNAL).write_text(json.dumps({"outcome": "success"}) + "\n")
    with pytest.raises(ValueError, match=r"journal\.jsonl: rows of another schema"):
        results.read_rows(tmp_path)


def test_calibration_is_over_plans():
    rows = [{"final_energy": [1.0, 2.0], "energy_gap": [None, 4.0]}, {"final_energy": [3.0]}]
    calibration = calibrate(rows)
    assert (calibration.mu, calibration.sigma, calibration.episodes) == (2.0, 1.0, 2)
    assert calibration.levels == {"final_energy": (2.0, 1.0)}  # one gap is no spread
    rows[1]["energy_gap"] = [6.0]
    assert calibrate(rows).levels["energy_gap"] == (5.0, 2**0.5)
    with pytest.raises(ValueError):
        calibrate([])


def test_a_run_with_only_its_table_goes_on_and_loses_nothing(tmp_path):
    run(Fleet(*["success"] * 4), tmp_path)
    (tmp_path / results.JOURNAL).unlink()
    more = [*TRIALS, *nominal("libero_object", [0], [41])]
    again = Fleet("timeout", None, None, None)
    rows = evaluate.run(again, "abc", more, tmp_path, lambda: False)
    assert again.ran == [0] and len(rows) == 5
    assert (
        len(results.read_rows(tmp_path)) == len(results.read_table(tmp_path / results.TABLE)) == 5
    )


class Policy:
    """As far as an evaluation knows it before it plans."""

    checkpoint = SimpleNamespace(sha256="abc", pixels="fast")
    device, precision = "cpu", "float32"


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """The command over a fleet that ends its trials as told; `abc` is the checkpoint."""
    monkeypatch.setattr(evaluate, "open_policy", lambda args: Policy())

    def command(outcome: str, *more: str) -> int:
        monkeypatch.setattr(evaluate, "make_fleet", lambda *_: Fleet(*[outcome] * 10))
        out = ("--out", str(tmp_path / "run"))
        return evaluate.main(["--inits", "40", *(out if "--out" not in more else ()), *more])

    return command


def test_another_sampler_is_another_run(evaluated, capsys):
    assert evaluated("success", "--chains", "2") == 0
    assert evaluated("success") == 2
    assert "holds episodes with --chains 2; choose another --out" in capsys.readouterr().err


def test_another_checkpoint_between_hides_no_sampler(evaluated, monkeypatch, capsys):
    assert evaluated("success", "--chains", "2") == 0
    abc = Policy.checkpoint
    monkeypatch.setattr(Policy, "checkpoint", SimpleNamespace(sha256="def", pixels="fast"))
    assert evaluated("success") == 0
    monkeypatch.setattr(Policy, "checkpoint", abc)
    assert evaluated("success") == 2
    assert "--chains 2; choose another --out" in capsys.readouterr().err


def test_two_never_write_one_folder(evaluated, tmp_path, capsys):
    with hold(tmp_path / "run"):
        assert evaluated("success") == 2
    assert "another run writes here" in capsys.readouterr().err


def test_an_episode_that_is_drawn_twice_counts_once():
    argv = ["--out", "x", "--inits", "40-44", "--perturb", "sensor", "--difficulty", "3"]
    trials = evaluate.make_trials(evaluate.parse_args([*argv, "--views", "200"]))
    assert len({trial.key for trial in trials}) == len(trials) == 100


def test_errors_are_no_quiet_end(evaluated, capsys):
    assert evaluated("error") == 3
    assert "10 episodes ended in an error" in capsys.readouterr().out
    assert evaluated("success") == 0


def test_nothing_is_told_from_another_checkpoint_or_another_kind(evaluated, tmp_path, capsys):
    told = ("--out", str(tmp_path / "told"), "--against", str(tmp_path / "run"))
    assert evaluated("success", *told) == 2
    assert "holds no nominal episodes of this checkpoint" in capsys.readouterr().err
    assert evaluated("success") == 0 and evaluated("success", *told) == 0
    assert evaluated("success", *told[2:], "--out", str(tmp_path / "other"), "--chains", "2") == 2
    assert "made with --chains 1, not 2" in capsys.readouterr().err
