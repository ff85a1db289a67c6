"""Episodes a minute, side by side: `python -m benchmarks.evaluate [--suite S] [--episodes N]`.

The same scenes with the same policy: one after another with LIBERO's own `OffScreenRenderEnv` as
its example does (pictures of both cameras at every control step), and with `studio.evaluate`'s
fleet of 1, 2 … simulators. The clock runs from the first scene to the last result, the start of the
simulators included. Success is told for each side, because a policy that fails takes
longer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.config import SamplerConfig
from models.policy import Policy
from models.types import Observation
from studio.events import Outcome, SceneSpec
from studio.fleet import LocalFleet
from studio.helm import REPLAN_EVERY, plan_seed
from studio.places import CHECKPOINT
from studio.sim import catalog
from studio.sim.libero_sim import SETTLE_ACTION, SETTLE_STEPS
from studio.trial import Trial

SIZE = 128  # pixels


def stock(policy: Policy, wanted: Sequence[Trial]) -> tuple[float, int]:
    """Seconds and successes of one episode after the other with `OffScreenRenderEnv`."""
    from studio.sim import build

    build.import_libero()
    from libero.libero.envs import OffScreenRenderEnv

    started, successes = time.perf_counter(), 0
    for trial in wanted:
        scene, task = trial.scene, catalog.task(trial.scene.suite, trial.scene.task)
        env = OffScreenRenderEnv(
            bddl_file_name=str(task.bddl_file), camera_heights=SIZE, camera_widths=SIZE
        )
        env.seed(scene.seed)
        env.reset()
        raw = env.set_init_state(catalog.init_state(scene.suite, scene.task, scene.init))
        for _ in range(SETTLE_STEPS):
            raw = env.step(SETTLE_ACTION)[0]
        chunk, done = [], False
        for step in range(catalog.max_steps(scene.suite)):
            if not chunk:
                seed = plan_seed(scene, step // REPLAN_EVERY)
                plan = policy.plan(_observation(raw, task.instruction), SamplerConfig(), seed)
                chunk = list(plan.actions[:REPLAN_EVERY])
            raw, _, done, _ = env.step(chunk.pop(0))
            if done:
                break
        successes += bool(done)
        env.close()
    return time.perf_counter() - started, successes


def _observation(raw: dict, instruction: str) -> Observation:
    """Robosuite's pictures stand on their heads; the state as LIBERO's users write it."""
    from robosuite.utils.transform_utils import quat2axisangle

    images = {
        "agentview": raw["agentview_image"][::-1].copy(),
        "wrist": raw["robot0_eye_in_hand_image"][::-1].copy(),
    }
    turned = quat2axisangle(raw["robot0_eef_quat"])
    state = np.concatenate([raw["robot0_eef_pos"], turned, raw["robot0_gripper_qpos"]])
    return Observation(images, state.astype(np.float32), instruction)


def fleet(policy: Policy, wanted: Sequence[Trial], workers: int) -> tuple[float, int]:
    """Seconds and successes with so many simulators."""
    ours = LocalFleet(policy, SamplerConfig(), workers)
    started = time.perf_counter()
    outcomes = [row["outcome"] for row in ours.run(wanted, lambda: False)]
    return time.perf_counter() - started, outcomes.count(Outcome.SUCCESS)


def main() -> None:
    """Print a Markdown table of all sides."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    p.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    p.add_argument("--suite", default="libero_object", choices=catalog.SUITES)
    p.add_argument("--episodes", type=int, default=10)
    arguments = p.parse_args()
    policy = Policy.from_pretrained(arguments.checkpoint)
    tasks = range(len(catalog.tasks(arguments.suite)))
    wanted = [Trial(SceneSpec(arguments.suite, task, init)) for init in (40, 41) for task in tasks]
    wanted = wanted[: arguments.episodes]
    print("| | episodes / minute | ratio | success |\n|---|---|---|---|")
    first = None
    counts = range(1, (os.cpu_count() or 1) + 1)
    sides = {"sequential, stock LIBERO": lambda: stock(policy, wanted)}
    sides |= {f"fleet of {n}": lambda n=n: fleet(policy, wanted, n) for n in counts}
    for name, side in sides.items():
        seconds, successes = side()
        rate = 60 * len(wanted) / seconds
        first = first or rate
        print(
            f"| {name} | {rate:.1f} | {rate / first:.1f} | {successes}/{len(wanted)} |", flush=True
        )


if __name__ == "__main__":
    main()
