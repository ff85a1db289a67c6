"""Success rates and the energy's calibration on nominal episodes, headless.

`python -m studio.evaluate --suite libero_object --inits 40-44 --out runs/object`

Every finished episode is one line of `<out>/episodes.jsonl`; a run that was interrupted goes on
where it stopped. `--calibrate` writes the mean and spread of the final energies of these episodes
into the checkpoint (μ_v, σ_v of EB-VLA Eq. 5).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.checkpoint import Calibration, write_calibration
from models.policy import EnergyPolicy
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


def parse_range(text: str) -> list[int]:
    """`40-44,47` as [40, 41, 42, 43, 44, 47]. Raises ValueError."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not low.isdigit() or (high and not high.isdigit()):
            raise ValueError(f"a range looks like 0-9 or 0,3,5, not {text!r}")
        numbers += range(int(low), int(high or low) + 1)
    return numbers


def episode_row(episode: Episode, camera: CameraPerturbation) -> dict[str, object]:
    """One line of the results: identity, outcome and every plan's energies."""
    scene, plans = episode.begin.scene, [record.plan for record in episode.plans]
    return {
        **asdict(scene),
        "camera": asdict(camera),
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


def evaluate_one(
    simulators: Simulators, policy: EnergyPolicy, scene: SceneSpec, camera: CameraPerturbation
) -> dict[str, object]:
    """Run one episode; a crash is an error row, never a failed episode."""
    sim = simulators.get()
    try:
        provenance = {"sha256": policy.checkpoint.sha256}
        episode = run_episode(sim, policy, scene, camera=camera, provenance=provenance)
        return episode_row(episode, camera)
    except (SimError, SimCrashed) as error:
        sim.restart()
        return {**asdict(scene), "outcome": str(Outcome.ERROR), "message": str(error)}


def read_rows(path: Path) -> list[dict]:
    """The finished episodes of an earlier run; a line cut off by a kill is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if row.get("outcome") != Outcome.ERROR]


def run(
    policy: EnergyPolicy,
    scenes: Sequence[SceneSpec],
    out: Path,
    workers: int,
    camera: CameraPerturbation,
) -> list[dict]:
    """Evaluate `scenes` in parallel; returns their rows, those of an earlier run among them."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "episodes.jsonl"
    key = lambda row: (row["suite"], row["task"], row["init"], row["seed"])  # noqa: E731
    done = {
        key(row): row
        for row in read_rows(path)
        if row["checkpoint"] == policy.checkpoint.sha256 and row["camera"] == asdict(camera)
    }
    todo = [scene for scene in scenes if key(asdict(scene)) not in done]
    simulators = Simulators(policy.checkpoint.pixels)
    rows = [done[key(asdict(s))] for s in scenes if key(asdict(s)) in done]
    try:
        with ThreadPoolExecutor(workers) as pool, path.open("a") as file:
            jobs = [pool.submit(evaluate_one, simulators, policy, s, camera) for s in todo]
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


def table(rows: Iterable[dict], suite: str) -> str:
    """Success per task and over all, with Wilson 95% intervals, as Markdown."""
    lines = ["| task | success | 95% interval |", "| --- | --- | --- |"]
    by_task: dict[int, list[bool]] = {}
    for row in rows:
        if row["outcome"] != Outcome.ERROR:
            by_task.setdefault(row["task"], []).append(row["outcome"] == Outcome.SUCCESS)
    names = catalog.tasks(suite)
    groups = [(names[task].instruction, wins) for task, wins in sorted(by_task.items())]
    groups.append((f"**{suite}**", [win for _, wins in groups for win in wins]))
    for name, wins in groups:
        low, high = wilson(sum(wins), len(wins))
        lines.append(f"| {name} | {sum(wins)}/{len(wins)} | {low:.0%} – {high:.0%} |")
    return "\n".join(lines)


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
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--tasks", default="0-9")
    parser.add_argument("--inits", default="40-44")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--calibrate", action="store_true", help="write calibration.json")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the table; exit code 2 on bad input."""
    args = parse_args(argv)
    try:
        scenes = [
            SceneSpec(args.suite, task, init, args.seed)
            for init in parse_range(args.inits)
            for task in parse_range(args.tasks)
        ]
        for scene in scenes:
            check_scene(scene)
        policy = EnergyPolicy.from_pretrained(args.checkpoint, device=args.device)
        rows = run(policy, scenes, args.out, max(1, args.workers), CameraPerturbation())
        print(table(rows, args.suite))
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
