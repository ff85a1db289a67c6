"""Evaluation runs on real scenes: killed, crashed, stopped, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from models.checkpoint import CALIBRATION, read_calibration
from models.config import SamplerConfig
from models.policy import Policy
from studio import results, sweep
from studio.events import Outcome
from studio.fleet import Worker
from studio.helm import PolicyAway
from studio.places import CHECKPOINT
from studio.provenance import provenance
from studio.scores import SCORES
from studio.trial import key_of
from studio.trials import nominal, perturbed
from studio.workspace import STUDIES
from tests.helpers import ROOT, wait_for

WAIT_S = 300


def evaluation(out: Path, *options: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "studio.evaluate", "--tasks", "0-2", "--inits", "40"]
    argv += ["--workers", "1", "--out", str(out), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(argv, cwd=ROOT, start_new_session=True, **pipes)


def journal(out: Path) -> list[str]:
    file = out / results.JOURNAL
    return file.read_text().splitlines() if file.exists() else []


def test_a_killed_run_loses_and_repeats_nothing_and_leaves_no_process(tmp_path):
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(CHECKPOINT, checkpoint)
    (checkpoint / CALIBRATION).unlink()
    options = ("--checkpoint", str(checkpoint), "--calibrate")
    run = evaluation(out, *options)
    wait_for(lambda: journal(out), WAIT_S)
    children = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not any(c.is_running() for c in children), WAIT_S)
    before = journal(out)
    assert 0 < len(before) < 3
    again = evaluation(out, *options)
    assert again.wait(WAIT_S) == 0
    assert journal(out)[: len(before)] == before
    rows = results.read_table(out / results.TABLE)
    assert sorted(row["task"] for row in rows) == [0, 1, 2]
    assert all(row["outcome"] in (Outcome.SUCCESS, Outcome.TIMEOUT) for row in rows)
    settings = json.loads((out / results.SETTINGS).read_text())
    assert settings["total"] == 3 and settings["sha256"] == rows[0]["checkpoint"]
    energies = [energy for row in rows for energy in row["final_energy"]]
    found = read_calibration(checkpoint)
    assert found.mu == pytest.approx(statistics.fmean(energies)) and found.episodes == 3
    assert found.sigma == pytest.approx(statistics.stdev(energies))


def test_a_stopped_run_ends_after_the_episode_under_way(tmp_path):
    run = evaluation(tmp_path)
    wait_for(lambda: journal(tmp_path), WAIT_S)
    os.killpg(run.pid, signal.SIGTERM)  # as a job's supervisor does: the simulators hear it, too
    said = run.communicate(timeout=WAIT_S)[0].decode()
    assert run.returncode == 128 + signal.SIGTERM and "the same command goes on" in said
    assert len(results.read_table(tmp_path / results.TABLE)) == len(journal(tmp_path)) < 3


def test_a_simulator_that_dies_costs_an_attempt_not_the_episode():
    policy = Policy.from_pretrained(CHECKPOINT)
    worker = Worker(policy, SamplerConfig(), policy.checkpoint.view, provenance(policy))

    class KillsOnce:
        """The policy, but its first plan finds the simulator dead."""

        def plan(self, obs, sampler, seed):
            worker.policy = policy
            os.kill(worker._sim.pid, signal.SIGKILL)
            return policy.plan(obs, sampler, seed)

    (trial,) = perturbed("camera", nominal("libero_object", [0], [40]), count=1)
    worker.policy = KillsOnce()
    row = worker.run(trial)
    worker.close()
    assert row["outcome"] in (Outcome.SUCCESS, Outcome.TIMEOUT)
    plans = len(row["step"])
    assert plans == len(row["final_energy"]) == len(row["timestep_energies"]) > 0
    assert set(SCORES) <= row.keys() and row["kind"] == "camera"


def test_the_shipped_checkpoint_still_says_what_its_study_says():
    """Pictures, normalisation, words, weights and noise: whatever changes shows here."""
    policy = Policy.from_pretrained(CHECKPOINT)
    (trial,) = nominal("libero_object", [0], [40])
    rows = results.read_rows(STUDIES / "eb-vla-tiny-nominal")
    studied = next(row for row in rows if key_of(row) == trial.key)
    assert studied["checkpoint"] == policy.checkpoint.sha256
    worker = Worker(policy, SamplerConfig(), policy.checkpoint.view, provenance(policy))
    row = worker.run(trial)
    worker.close()
    for score in ("initial_energy", "final_energy", "energy_gap", "context_distance"):
        assert row[score][0] == pytest.approx(studied[score][0], abs=0.2), score


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    argv = ["--size", "2", "--plans", "1", "--out", str(tmp_path)]
    assert sweep.main(argv) == 0
    first = sweep.read_sweep(tmp_path)
    assert len(first["points"]) == first["total"] == 4
    energies = [point["final_energy"] for point in first["points"]]
    assert len(set(energies)) == 4
    cut = {**first, "points": first["points"][:1]}
    (tmp_path / sweep.RESULT).write_text(json.dumps(cut))
    assert sweep.main(argv) == 0
    assert sweep.read_sweep(tmp_path) == first
    assert sweep.main([*argv, "--init", "41"]) == 2  # another sweep's folder


def test_a_sweep_waits_for_a_policy_that_is_away_and_keeps_what_it_has(tmp_path, monkeypatch):
    asked, plan_batch = [], Policy.plan_batch

    def moody(policy, *arguments):
        asked.append(None)
        if len(asked) == 2:
            raise PolicyAway("busy", 0.01)
        if len(asked) == 4:
            raise ValueError("gone for good")
        return plan_batch(policy, *arguments)

    monkeypatch.setattr(Policy, "plan_batch", moody)
    assert sweep.main(["--size", "2", "--plans", "1", "--out", str(tmp_path)]) == 2
    assert len(sweep.read_sweep(tmp_path)["points"]) == 2
