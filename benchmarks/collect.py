"""Collecting demonstrations against stock LIBERO: `python -m benchmarks.collect [--episodes 3]`.

The same scripted expert solves the same scenes, and both 128 x 128 pictures are taken at every
step: once with `LiberoSim`, once with LIBERO's own `OffScreenRenderEnv`. Each side runs in a
process of its own, one after the other; the scenes are already built when the clock starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from studio.events import SceneSpec
from studio.sim import catalog

SETTLE = np.array([0.0] * 6 + [-1.0])


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
        for _ in range(10):
            env.step(SETTLE)
        steps += _solve(SimpleNamespace(env=env.env), env.step)
    return time.perf_counter() - start, steps


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
    print("| | demonstrations / minute | ms / step | steps |\n|---|---|---|---|")
    seconds = {}
    for name, side in (("stock LIBERO", stock), ("LiberoSim", ours)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds[name], steps = pool.apply(
                side, (arguments.suite, arguments.task, arguments.episodes)
            )
        rate, per_step = 60 * arguments.episodes / seconds[name], 1000 * seconds[name] / steps
        print(f"| {name} | {rate:.1f} | {per_step:.0f} | {steps} |", flush=True)
    print(f"\n{seconds['stock LIBERO'] / seconds['LiberoSim']:.1f} times as fast")


if __name__ == "__main__":
    main()
