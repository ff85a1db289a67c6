"""Memory and speed of training by batch size: `python -m benchmarks.batch_sizes`.

Optimiser steps of a preset on random samples, as the trainer makes them: bfloat16 but for the last
MCMC step, K over the paper's whole range, frozen towers, LoRA and gradient checkpointing where the
preset has them. Each size runs in a process of its own; one that finds no memory says so. On a GPU,
for the paper's model:

    python -m benchmarks.batch_sizes --preset eb-vla-0.5b --sizes 4,8,16,32,64
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource

import torch

from benchmarks.train import random_batch, steps
from models.config import PRESETS, preset
from models.losses import Batch
from models.model import EBVLA
from models.policy import choose_device
from models.run import no_memory


def on(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved = {n: v.to(device) for n, v in values.items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(batch, **moved)


def measure(name: str, size: int, where: str, checkpointing: bool) -> tuple[float, float] | None:
    """Samples per second and peak memory in MB, or None when there is too little of it."""
    device = choose_device(where)
    torch.manual_seed(0)
    try:
        model = EBVLA(preset(name)).to(device)
        if checkpointing:
            model.backbone.language.activation_checkpointing_enable({"use_reentrant": False})
        rate, _ = steps(model, on(random_batch(model, size), device))
    except RuntimeError as error:
        if not no_memory(error):
            raise
        return None
    if device.type == "cuda":
        return rate, torch.cuda.max_memory_allocated(device) / 2**20
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--preset", choices=PRESETS, default="eb-vla-tiny")
    p.add_argument("--sizes", default="16,32,64", help="batch sizes, with commas")
    p.add_argument("--device", default="auto")
    args = p.parse_args()
    recompute = (False, True) if preset(args.preset).has_pretrained_parts else (False,)
    print(f"| {args.preset}: batch | activations | samples/s | peak memory, MB |")
    print("|---|---|---|---|")
    for size in map(int, args.sizes.split(",")):
        for again in recompute:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (args.preset, size, args.device, again))
            told = f"{found[0]:.1f} | {found[1]:,.0f}" if found else "– | too little memory"
            print(f"| {size} | {'recomputed' if again else 'kept'} | {told} |", flush=True)


if __name__ == "__main__":
    main()
