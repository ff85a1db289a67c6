"""One story, command by command: demonstrations, training, resuming, and the robot moves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


def run(module: str, *arguments: object) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def losses(out: Path) -> dict[int, float]:
    """By step."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
def test_from_demonstrations_to_an_acting_policy(tmp_path):
    demos, out = tmp_path / "demos", tmp_path / "run"
    run("studio.collect", "--tasks", 0, "--per-task", 2, "--workers", 1, "--out", demos)
    train = ("models.train", "--preset", "debug", "--data", demos,
             "--batch-size", 4, "--log-every", 1, "--val-every", 2)  # fmt: skip
    run(*train, "--out", out, "--steps", 2)
    judged = ("--eval-every", 4, "--eval-tasks", 0, "--eval-inits", 39)
    run(*train, "--out", out, "--steps", 4, "--resume", *judged)
    found = losses(out)
    assert list(found) == [1, 2, 3, 4]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and last["episodes"] == 1 and last["success_rate"] in (0, 1)
    assert (out / "best").is_dir()
    run(*train, "--out", tmp_path / "compiled", "--steps", 4, "--compile")
    assert losses(tmp_path / "compiled") == pytest.approx(found, rel=0.02)
    without = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    argv = (*train, "--out", tmp_path / "plain", "--steps", 1, "--compile")
    done = subprocess.run(
        [sys.executable, "-m", *map(str, argv)],
        cwd=ROOT, env=os.environ | without, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "leave --compile out" in done.stderr.splitlines()[-1]
    scene = ("--suite", "libero_object", "--task", 0, "--init", 40)
    episode = ("--checkpoint", out / "last", "--out", tmp_path / "episode")
    line = json.loads(run("studio.rollout", *scene, *episode).splitlines()[-1])
    assert line["outcome"] in ("success", "timeout") and line["plans"] >= 2
    assert line["instruction"] == "pick up the alphabet soup and place it in the basket"
