"""Success in the simulator during a run: `python -m studio.evaluate` on OUT/last, every so often.

The models know nothing of the simulator: this speaks to the evaluation by its command line and its
results, a line per episode in `journal.jsonl`. Training waits meanwhile.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.ranges import parse_range

ROOT = Path(__file__).parents[1]
POLL_S = 0.5
GRACE_S = 20.0
INCOMPLETE = 3  # exit status of a command that did what it could: here, episodes ended in errors


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Which episodes, and where: `out` is the folder of the run."""

    out: Path
    suite: str
    tasks: str
    inits: str
    device: str

    def command(self, step: int) -> list[str]:
        """The argv that evaluates OUT/last into OUT/eval/step_<step>."""
        out = self.out.resolve()
        return [
            sys.executable, "-m", "studio.evaluate", "--checkpoint", str(out / "last"),
            "--suite", self.suite, "--tasks", self.tasks, "--inits", self.inits,
            "--device", self.device, "--out", str(out / "eval" / f"step_{step}"),
        ]  # fmt: skip

    def check(self) -> None:
        """Raises ValueError when the evaluation refuses its options, which it does at once."""
        command = [*self.command(0), "--dry-run"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"evaluation refused: {_last(done.stderr)}")

    def run(self, step: int, stop: Callable[[], bool]) -> dict[str, float]:
        """success_rate in [0, 1], successes and episodes; {} when stopped or failed.

        A failure is told on stderr and training goes on; its output is in OUT/eval/step_<step>.
        """
        folder = self.out / "eval" / f"step_{step}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("w") as log:
            status = _wait(self.command(step), log.fileno(), stop)
        if status is None:
            return {}
        if status not in (0, INCOMPLETE):
            last = _last((folder / "log.txt").read_text())
            print(f"evaluation at step {step} failed: {last}", file=sys.stderr, flush=True)
            return {}
        return self.success(folder / "journal.jsonl")

    def success(self, journal: Path) -> dict[str, float]:
        """Rate and counts of what was asked for, each episode's last try; errors are none."""
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        tries = {(row["suite"], row["task"], row["init"]): row["outcome"] for row in rows}
        tasks, inits = parse_range(self.tasks), parse_range(self.inits)
        asked = itertools.product(self.suite.split(","), tasks, inits)
        finished = [o for o in map(tries.get, asked) if o not in (None, "error")]
        if not finished:
            return {}
        wins = finished.count("success")
        return {
            "success_rate": round(wins / len(finished), 4),
            "successes": wins,
            "episodes": len(finished),
        }


def _last(output: str) -> str:
    return (output.splitlines() or ["no output"])[-1]


def _wait(command: list[str], log: int, stop: Callable[[], bool]) -> int | None:
    """Run to the end; the exit status, None if stopped. The child never outlives this call."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not stop():
            with suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_S)
        return None
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
