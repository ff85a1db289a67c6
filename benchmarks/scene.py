"""How long scenes and control steps take, beside stock LIBERO: `python -m benchmarks.scene`.

One run, one process, one table: putting a scene up (stock; ours with an empty cache folder; ours
with a filled one) and one control step with both cameras at 256 x 256 pixels. The tasks of
`TASKS` are visited in turn after another one, so that imports and just-in-time compilation, which
happen once per process, are left out. Every figure is a median, in wall-clock time; `--cpu` counts
processor time instead, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studio.events import SceneSpec
from studio.sim import build, catalog
from studio.sim.libero_sim import LiberoSim

TASKS = (("libero_spatial", 0), ("libero_object", 0), ("libero_goal", 3))
WARM_UP = SceneSpec("libero_10", 4)
STEPS = 30

clock = time.perf_counter


def seconds(work: Callable[..., Any], *arguments: object) -> float:
    """Time of one call."""
    start = clock()
    work(*arguments)
    return clock() - start


def stock(scene: SceneSpec) -> tuple[float, float]:
    """(scene switch, control step) of LIBERO's own `OffScreenRenderEnv`, in seconds."""
    from libero.libero.envs import OffScreenRenderEnv

    file = str(catalog.task(scene.suite, scene.task).bddl_file)
    state = catalog.init_state(scene.suite, scene.task, scene.init)
    start = clock()
    env = OffScreenRenderEnv(bddl_file_name=file, camera_heights=256, camera_widths=256)
    env.seed(scene.seed)
    env.env.reset()  # the wrapper's reset() hides errors
    env.set_init_state(state)
    switched = clock() - start
    env.env.sim._render_context_offscreen.gl_ctx.make_current()
    stepped = statistics.median(seconds(env.step, action) for action in _actions())
    env.close()
    return switched, stepped


def ours(sim: LiberoSim, scene: SceneSpec) -> tuple[float, float]:
    """(scene switch until the first pictures, control step) of `LiberoSim`, in seconds."""

    def pictures() -> None:
        sim.render("agentview")
        sim.render("wrist")

    def switch() -> None:
        sim.load(scene)
        pictures()

    def step(action: np.ndarray) -> None:
        sim.step(action)
        pictures()

    return seconds(switch), statistics.median(seconds(step, action) for action in _actions())


def _actions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, (STEPS, 7))


def table(rows: list[tuple[str, float, float]]) -> str:
    """Markdown of (name, stock seconds, our seconds)."""
    lines = ["| what | stock | ours | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {before * 1e3:.0f} ms | {after * 1e3:.0f} ms | {before / after:.1f}x |"
        for name, before, after in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    global clock
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cpu", action="store_true", help="count processor time")
    if p.parse_args().cpu:
        clock = time.process_time
    build.import_libero()
    scenes = [SceneSpec(suite, task) for suite, task in TASKS]
    with tempfile.TemporaryDirectory() as folder:
        sim = LiberoSim(cache_dir=Path(folder))
        ours(sim, WARM_UP)
        # In turns, so that other work on the machine slows both.
        cold, before = zip(*[(ours(sim, scene), stock(scene)) for scene in scenes], strict=True)
        warm = [ours(sim, scene) for scene in scenes]
        sim.close()
    stock_switch, stock_step = np.median(before, axis=0)
    cold_switch, _ = np.median(cold, axis=0)
    warm_switch, step = np.median(warm, axis=0)
    print(
        table(
            [
                ("scene switch, first visit of a task", stock_switch, cold_switch),
                ("scene switch, cached", stock_switch, warm_switch),
                ("control step, two cameras at 256²", stock_step, step),
            ]
        )
    )


if __name__ == "__main__":
    main()
