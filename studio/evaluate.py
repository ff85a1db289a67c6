"""Success rates, the energy's calibration, and what it says of perturbed episodes; headless.

`python -m studio.evaluate --suite libero_object --inits 40-44 --out runs/object`
`python -m studio.evaluate --perturb camera --views 60 --out runs/moved --against runs/object`

`--perturb` changes one thing: `camera` (LIBERO-Plus views), `language` (LIBERO-PRO's paraphrases)
or `goal` (another task of the suite is asked for in the scene). Every finished episode is one line
of `<out>/episodes.jsonl`; a run that was interrupted goes on where it stopped. `--calibrate` writes
the mean and spread of the final energies of these episodes into the checkpoint (μ_v, σ_v of EB-VLA
Eq. 5); `--against` prints how well scores tell these episodes from those of a nominal run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.checkpoint import Calibration, write_calibration
from models.policy import EnergyPolicy
from studio import detection
from studio.events import CameraPerturbation, Outcome, SceneSpec
from studio.recorder import Episode
from studio.rollout import run_episode
from studio.sim import catalog
from studio.sim.process import SimCrashed, SimError, SimProcess
from studio.studio import check_scene

Z95 = 1.959963984540054


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95% Wilson score interval of a success rate (Wilson 1927)."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode to run; `instruction` None is the one of the scene's goal."""

    scene: SceneSpec
    camera: CameraPerturbation = field(default_factory=CameraPerturbation)
    instruction: str | None = None
    difficulty: int | None = None  # of a LIBERO-Plus view

    def row(self) -> dict[str, object]:
        """What identifies the trial in the results."""
        return {
            **asdict(self.scene),
            "camera": asdict(self.camera),
            "instruction": self.instruction,
            "difficulty": self.difficulty,
        }


def nominal(suite: str, tasks: Sequence[int], inits: Sequence[int], seed: int) -> list[Trial]:
    """Every task from every initial state. Raises ValueError for what does not exist."""
    trials = [Trial(SceneSpec(suite, task, init, seed)) for init in inits for task in tasks]
    for trial in trials:
        check_scene(trial.scene)
    return trials


def in_other_words(trials: Sequence[Trial]) -> list[Trial]:
    """The same scenes with LIBERO-PRO's paraphrases. Raises ValueError where there are none."""
    return [
        Trial(t.scene, instruction=catalog.paraphrase(t.scene.suite, t.scene.task)) for t in trials
    ]


def for_other_goals(trials: Sequence[Trial]) -> list[Trial]:
    """The same scenes asked for their other possible goals in turn.

    Raises ValueError when no scene has any.
    """
    changed = []
    for t in trials:
        if goals := catalog.other_goals(t.scene.suite, t.scene.task):
            goal = goals[t.scene.init % len(goals)]
            changed.append(Trial(replace(t.scene, goal=goal)))
    if not changed:
        raise ValueError("the scenes of this suite can't be asked for one another's goals")
    return changed


def from_other_views(
    trials: Sequence[Trial], count: int | None, difficulties: Sequence[int]
) -> list[Trial]:
    """`count` LIBERO-Plus views (None: all) drawn evenly over the trials' tasks, in fixed order.

    The k-th view of a task is seen from its k-th initial state. Raises ValueError without views.
    """
    left = {}
    for t in trials:
        left.setdefault((t.scene.suite, t.scene.task), []).append(t.scene)
    views = [v for v in catalog.libero_plus_views() if v.difficulty in difficulties]
    views = [v for v in views if (v.suite, v.task) in left]
    if not views:
        raise ValueError("LIBERO-Plus has no such views of these tasks")
    random.Random(0).shuffle(views)
    seen: dict[tuple[str, int], int] = {}
    ordered = []
    for view in views:
        rank = seen[view.suite, view.task] = seen.get((view.suite, view.task), -1) + 1
        scenes = left[view.suite, view.task]
        trial = Trial(scenes[rank % len(scenes)], view.camera, difficulty=view.difficulty)
        ordered.append((rank, trial))
    return [trial for _, trial in sorted(ordered, key=lambda pair: pair[0])][:count]


def episode_row(episode: Episode, trial: Trial) -> dict[str, object]:
    """One line of the results: identity, outcome and every plan's energies."""
    plans = [record.plan for record in episode.plans]
    return {
        **trial.row(),
        "outcome": str(episode.end.outcome),
        "steps": episode.end.steps,
        "initial_energy": [plan.initial_energy for plan in plans],
        "final_energy": [plan.final_energy for plan in plans],
        "energy_gap": [plan.energy_gap for plan in plans],
        "latency_s": [round(plan.latency_s, 4) for plan in plans],
        "checkpoint": episode.provenance["sha256"],
    }


class Simulators:
    """One simulator process per worker thread, restarted when it crashes."""

    def __init__(self, pixels: str) -> None:
        self._pixels, self._local = pixels, threading.local()
        self._all: list[SimProcess] = []

    def get(self) -> SimProcess:
        """The calling thread's simulator."""
        if not hasattr(self._local, "sim"):
            self._local.sim = SimProcess(self._pixels)
            self._all.append(self._local.sim)
        return self._local.sim

    def close(self) -> None:
        """End every process."""
        for sim in self._all:
            sim.close()


def evaluate_one(simulators: Simulators, policy: EnergyPolicy, trial: Trial) -> dict[str, object]:
    """Run one episode; a crash is an error row, never a failed episode."""
    sim = simulators.get()
    try:
        episode = run_episode(
            sim,
            policy,
            trial.scene,
            camera=trial.camera,
            instruction=trial.instruction,
            provenance={"sha256": policy.checkpoint.sha256},
        )
        return episode_row(episode, trial)
    except (SimError, SimCrashed) as error:
        sim.restart()
        return {**trial.row(), "outcome": str(Outcome.ERROR), "message": str(error)}


def read_rows(path: Path) -> list[dict]:
    """The finished episodes of an earlier run; a line cut off by a kill is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if row.get("outcome") != Outcome.ERROR]


def run(policy: EnergyPolicy, trials: Sequence[Trial], out: Path, workers: int) -> list[dict]:
    """Evaluate `trials` in parallel; returns their rows, those of an earlier run among them."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "episodes.jsonl"
    sha = policy.checkpoint.sha256
    done = {_key(row): row for row in read_rows(path) if row["checkpoint"] == sha}
    todo = [trial for trial in trials if _key(trial.row()) not in done]
    rows = [done[key] for key in (_key(trial.row()) for trial in trials) if key in done]
    simulators = Simulators(policy.checkpoint.pixels)
    try:
        with ThreadPoolExecutor(workers) as pool, path.open("a") as file:
            jobs = [pool.submit(evaluate_one, simulators, policy, trial) for trial in todo]
            bar = tqdm(as_completed(jobs), total=len(jobs), desc="episodes", smoothing=0.1)
            for job in bar:
                row = job.result()
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows.append(row)
                wins = sum(r["outcome"] == Outcome.SUCCESS for r in rows)
                bar.set_postfix(success=f"{wins}/{len(rows)}")
    finally:
        simulators.close()
    return rows


def _key(row: Mapping[str, object]) -> str:
    return json.dumps([row.get(name) for name in Trial(SceneSpec()).row()], sort_keys=True)


def table(rows: Iterable[dict]) -> str:
    """Success per task and suite, with Wilson 95% intervals, as Markdown."""
    lines = ["| task | success | 95% interval |", "| --- | --- | --- |"]
    wins: dict[str, dict[int, list[bool]]] = {}
    for row in rows:
        if row["outcome"] != Outcome.ERROR:
            tasks = wins.setdefault(row["suite"], {})
            tasks.setdefault(row["task"], []).append(row["outcome"] == Outcome.SUCCESS)
    for suite, tasks in wins.items():
        names = catalog.tasks(suite)
        lines += [_line(names[task].instruction, tasks[task]) for task in sorted(tasks)]
        lines.append(_line(f"**{suite}**", [win for task in tasks.values() for win in task]))
    return "\n".join(lines)


def _line(name: str, wins: Sequence[bool]) -> str:
    low, high = wilson(sum(wins), len(wins))
    return f"| {name} | {sum(wins)}/{len(wins)} | {low:.0%} – {high:.0%} |"


def calibrate(rows: Sequence[dict]) -> Calibration:
    """μ_v and σ_v over the plans of nominal episodes. Raises ValueError with fewer than two."""
    energies = [e for row in rows for e in row.get("final_energy", ())]
    if len(energies) < 2:
        raise ValueError("calibration needs at least two plans; evaluate some episodes first")
    mu, sigma = float(np.mean(energies)), float(np.std(energies, ddof=1))
    return Calibration(mu=mu, sigma=sigma, score="final_energy", episodes=len(rows))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    default = Path(__file__).parents[1] / "assets" / "checkpoints" / "eb-vla-tiny"
    parser = argparse.ArgumentParser(prog="python -m studio.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=default)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--suite", default="libero_object", help="one, or several with commas")
    parser.add_argument("--tasks", default="0-9")
    parser.add_argument("--inits", default="40-44")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--perturb", choices=("none", "camera", "language", "goal"), default="none")
    parser.add_argument("--views", type=int, help="camera: so many LIBERO-Plus views (all)")
    parser.add_argument("--difficulty", default="1-5", help="camera: LIBERO-Plus difficulties")
    parser.add_argument("--calibrate", action="store_true", help="write calibration.json")
    parser.add_argument("--against", type=Path, help="folder of a nominal run to be told from")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def make_trials(args: argparse.Namespace) -> list[Trial]:
    """The episodes that the command line asks for. Raises ValueError."""
    tasks, inits = catalog.parse_range(args.tasks), catalog.parse_range(args.inits)
    suites = args.suite.split(",")
    trials = [trial for suite in suites for trial in nominal(suite, tasks, inits, args.seed)]
    if args.perturb == "camera":
        return from_other_views(trials, args.views, catalog.parse_range(args.difficulty))
    change = {"language": in_other_words, "goal": for_other_goals}.get(args.perturb, list)
    return change(trials)


def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the tables; exit code 2 on bad input."""
    args = parse_args(argv)
    try:
        if args.calibrate and args.perturb != "none":
            raise ValueError("--calibrate needs nominal episodes: leave --perturb out")
        trials = make_trials(args)
        vanilla = read_rows(args.against / "episodes.jsonl") if args.against else []
        policy = EnergyPolicy.from_pretrained(args.checkpoint, device=args.device)
        rows = run(policy, trials, args.out, max(1, args.workers))
        print(table(rows))
        if args.against:
            print(detection.table(vanilla, rows))
        if args.calibrate:
            calibration = calibrate(rows)
            write_calibration(args.checkpoint, calibration)
            print(f"calibration: μ_v = {calibration.mu:.4f}, σ_v = {calibration.sigma:.4f}")
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
