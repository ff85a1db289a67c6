"""What binding the context once is worth: `python -m benchmarks.model`.

Times one plan of the tiny preset (random weights, CPU) as the studio makes it, beside the same
descent that encodes the observation anew at every step and one that only projects its keys and
values anew; what all cores, bfloat16 and `torch.compile` would bring; and a landscape slice beside
one that evaluates every point, in batches and one at a time. Prints the best of several runs, and
ratios: a shared machine's milliseconds vary, its ratios less.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.heads import as_planned, observation, plan_of
from models.config import SamplerConfig, preset
from models.landscape import slice_2d
from models.mcmc import descend, draw_noise, evaluate_energies
from models.model import EBVLA

CPU = torch.device("cpu")


def best_of(runs: int, call: Callable[[], object]) -> float:
    """Least seconds of `runs` calls after one to warm up."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def plan_times(model: EBVLA, runs: int, chains: int) -> dict[str, float]:
    """Seconds of one plan: bound once, keys and values each step, everything each step."""
    seen = observation(model.config, CPU)
    config = SamplerConfig(chains=chains)
    initial, noise = draw_noise(config, (model.config.horizon, model.config.action_dim), [0])

    @torch.no_grad()
    def encode():
        return model.backbone(*seen)

    def once():
        descend(model.head.bind(encode()), initial, noise, config)

    def rebind():
        context = encode()
        descend(lambda a: model.head(context, a), initial, noise, config)

    def reencode():
        descend(lambda a: model.head(encode(), a), initial, noise, config)

    return {
        "encode only": best_of(runs, encode),
        "plan, context bound once": best_of(runs, once),
        "plan, keys and values at each step": best_of(runs, rebind),
        "plan, observation encoded at each step": best_of(runs, reencode),
    }


def option_times(model: EBVLA, runs: int) -> dict[str, float]:
    """Seconds of one plan as the studio makes it, and with one thing changed."""
    steps = SamplerConfig().steps

    def made(dtype: torch.dtype) -> Callable[[], object]:
        return plan_of(as_planned(copy.deepcopy(model), CPU, dtype), steps, CPU)

    plan = made(torch.float32)
    times = {"as it is": best_of(runs, plan)}
    torch.set_num_threads(os.cpu_count() or 1)
    times["on all cores"] = best_of(runs, plan)
    torch.set_num_threads(1)
    times["in bfloat16"] = best_of(runs, made(torch.bfloat16))
    times["weights not packed"] = best_of(runs, plan_of(model, steps, CPU))
    compiled = copy.deepcopy(model)
    compiled.head.evaluate = torch.compile(compiled.head.evaluate)
    times["not packed, head compiled"] = best_of(runs, plan_of(compiled, steps, CPU))
    return times


def slice_times(model: EBVLA, runs: int, grid: int) -> dict[str, float]:
    """Seconds of a grid x grid slice, of all its points in batches, and of one after the other.

    The last is extrapolated from a row.
    """
    with torch.no_grad():
        energy = model.head.bind(model.backbone(*observation(model.config, CPU)))
    centre = np.zeros((model.config.horizon, model.config.action_dim), np.float32)
    point = torch.from_numpy(centre)[None, None]
    points = point.expand(1, grid**2, -1, -1)

    @torch.no_grad()
    def row():
        for _ in range(grid):
            energy(point)

    return {
        f"slice {grid} x {grid}": best_of(
            runs, lambda: slice_2d(energy, centre, 0, (0, 1), 1.0, grid)
        ),
        "every point, in batches": best_of(runs, lambda: evaluate_energies(energy, points)),
        "every point, one by one": grid * best_of(runs, row),
    }


def print_table(times: dict[str, float], reference: str) -> None:
    """Milliseconds, and how many times the reference."""
    for name, seconds in times.items():
        print(f"{name:42s} {1e3 * seconds:10.1f} ms {seconds / times[reference]:8.2f} x")


def main() -> None:
    """Run and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--grid", type=int, default=50)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = EBVLA(preset("eb-vla-tiny")).eval().requires_grad_(False)
    for chains in (1, 8):
        print(f"-- {chains} chain(s), K = {SamplerConfig().steps}, {args.threads} thread(s)")
        print_table(plan_times(model, args.runs, chains), "plan, context bound once")
    print("-- one chain: what else there is")
    times = option_times(model, args.runs)
    print_table(times, "as it is")
    print("-- landscape")
    times = slice_times(model, args.runs, args.grid)
    print_table(times, next(iter(times)))


if __name__ == "__main__":
    main()
