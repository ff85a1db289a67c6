"""One story, command by command: demonstrations, training, resuming, and the robot moves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: object) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_from_demonstrations_to_an_acting_policy(tmp_path):
    demos, out = tmp_path / "demos", tmp_path / "run"
    run("studio.collect", "--tasks", 0, "--per-task", 2, "--workers", 1, "--out", demos)
    train = ("models.train", "--preset", "debug", "--data", demos, "--out", out,
             "--batch-size", 4, "--log-every", 1, "--val-every", 2)  # fmt: skip
    run(*train, "--steps", 2)
    run(*train, "--steps", 4, "--resume")
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    scene = ("--suite", "libero_object", "--task", 0, "--init", 40)
    episode = ("--checkpoint", out / "last", "--out", tmp_path / "episode")
    line = json.loads(run("studio.rollout", *scene, *episode).splitlines()[-1])
    assert line["outcome"] in ("success", "timeout") and line["plans"] >= 2
    assert line["instruction"] == "pick up the alphabet soup and place it in the basket"
