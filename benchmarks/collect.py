"""Collecting demonstrations against stock LIBERO: `python -m benchmarks.collect [--episodes 3]`.

The same scripted expert solves the same task, and both 128 x 128 pictures are taken at every step:
with LIBERO's own `OffScreenRenderEnv`, with one `LiberoSim`, each in a process of its own whose
scene is built when the clock starts, and by the whole `python -m studio.collect` on all cores, its
start and its writing included, which makes as many episodes per core and ten more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from models.data import demonstration_files
from models.libero_hdf5 import outline
from studio.events import SceneSpec
from studio.places import ROOT
from studio.sim import catalog
from studio.sim.libero_sim import SETTLE_ACTION, SETTLE_STEPS


def ours(suite: str, task: int, episodes: int) -> tuple[float, int]:
    """Seconds and control steps of the episodes with `LiberoSim`."""
    from studio.sim.libero_sim import LiberoSim

    sim = LiberoSim(pixels="fast")
    sim.load(SceneSpec(suite, task, 0))
    sim.observe()

    def step(action: np.ndarray) -> None:
        sim.observe(size=128)
        sim.step(action)

    start, steps = time.perf_counter(), 0
    for init in range(episodes):
        sim.load(SceneSpec(suite, task, init))
        steps += _solve(sim, step)
    return time.perf_counter() - start, steps


def stock(suite: str, task: int, episodes: int) -> tuple[float, int]:
    """Seconds and control steps of the episodes with `OffScreenRenderEnv`."""
    from studio.sim import build

    build.import_libero()
    from libero.libero.envs import OffScreenRenderEnv

    info = catalog.task(suite, task)
    env = OffScreenRenderEnv(
        bddl_file_name=str(info.bddl_file), camera_heights=128, camera_widths=128
    )
    start, steps = time.perf_counter(), 0
    for init in range(episodes):
        env.seed(0)
        env.reset()
        env.set_init_state(catalog.init_state(suite, task, init))
        for _ in range(SETTLE_STEPS):
            env.step(SETTLE_ACTION)
        steps += _solve(SimpleNamespace(env=env.env), env.step)
    return time.perf_counter() - start, steps


def command(suite: str, task: int, episodes: int) -> tuple[float, int]:
    """Seconds and control steps of the episodes with `python -m studio.collect` on all cores."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"suite": suite, "tasks": task, "per-task": episodes, "noise": 0, "out": folder}
        argv = [f"--{name}={value}" for name, value in options.items()]
        start = time.perf_counter()
        collect = [sys.executable, "-m", "studio.collect", *argv]
        subprocess.run(collect, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        [file] = demonstration_files(Path(folder))
        _, lengths = outline(file)
        return seconds, sum(lengths)


def _solve(sim: object, step: Callable[[np.ndarray], object]) -> int:
    from studio.sim.expert import Expert

    expert, steps = Expert(sim), 0
    while True:
        action = expert.act()
        if expert.done:
            return steps
        step(action)
        steps += 1


def main() -> None:
    """Print a Markdown table of both sides."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.collect", description=__doc__)
    p.add_argument("--suite", default="libero_object", choices=catalog.SUITES)
    p.add_argument("--task", type=int, default=0)
    p.add_argument("--episodes", type=int, default=3)
    arguments = p.parse_args()
    sides = {
        "stock LIBERO": (stock, arguments.episodes),
        "`LiberoSim`": (ours, arguments.episodes),
        "`studio.collect`": (command, arguments.episodes * (os.cpu_count() or 1) + 10),
    }
    print("| | demonstrations / minute | ratio | ms / step |\n|---|---|---|---|")
    rates: list[float] = []
    for name, (side, episodes) in sides.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, steps = pool.apply(side, (arguments.suite, arguments.task, episodes))
        rates.append(60 * episodes / seconds)
        print(
            f"| {name} | {rates[-1]:.1f} | {rates[-1] / rates[0]:.1f} "
            f"| {1000 * seconds / steps:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
