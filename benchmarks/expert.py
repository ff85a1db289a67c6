"""How often the scripted expert solves a task: `python -m benchmarks.expert --suite libero_goal`.

Physics only, no action noise, one attempt from each initial state. Prints a Markdown table: solved
with any number of grasps, solved with one (what a demonstration needs), and the median length.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass
from statistics import median

import numpy as np
from tqdm import tqdm

from models.ranges import parse_range
from studio.events import SceneSpec
from studio.intervals import wilson
from studio.sim import catalog


@dataclass(frozen=True, slots=True)
class Result:
    """One episode of the expert."""

    task: int
    init: int
    solved: bool
    retries: int
    steps: int


_sim = None


def solve(scene: SceneSpec) -> Result:
    """Let the expert run to its end; solved if the goal holds then, within the suite's steps."""
    global _sim
    from studio.sim.expert import Expert
    from studio.sim.libero_sim import LiberoSim

    _sim = _sim or LiberoSim()
    limit = _sim.load(scene).max_steps
    expert, success, steps = Expert(_sim, np.random.default_rng(scene.init)), False, 0
    while not expert.done and steps < limit:
        success = _sim.step(expert.act()).success
        steps += 1
    return Result(scene.task, scene.init, success, expert.retries, steps)


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.expert", description=__doc__)
    p.add_argument("--suite", default="libero_object", choices=catalog.SUITES)
    p.add_argument("--tasks", default="0-9")
    p.add_argument("--inits", default="0-49")
    p.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    args = p.parse_args()
    tasks, inits = parse_range(args.tasks), parse_range(args.inits)
    scenes = [SceneSpec(args.suite, task, init, init % 5) for task in tasks for init in inits]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        results = list(tqdm(pool.imap_unordered(solve, scenes), total=len(scenes)))
    print("| task | solved | with one grasp | steps |\n|---|---|---|---|")
    for task in tasks:
        _print(str(task), [r for r in results if r.task == task])
    _print(f"**{args.suite}**", results)
    failed = [(r.task, r.init) for r in results if not r.solved]
    if failed:
        print(f"not solved (task, init): {sorted(failed)}")


def _print(name: str, results: list[Result]) -> None:
    solved = [r for r in results if r.solved]
    once = sum(r.retries == 0 for r in solved)
    low, high = wilson(len(solved), len(results))
    steps = f"{median(r.steps for r in solved):.0f}" if solved else "–"
    share = f"{len(solved)}/{len(results)} ({low:.0%} – {high:.0%})"
    print(f"| {name} | {share} | {once} | {steps} |", flush=True)


if __name__ == "__main__":
    main()
