"""What encoding once is worth in training, and how soon it starts: `python -m benchmarks.train`.

Times optimiser steps of the tiny preset as the trainer makes them (context encoded once, MCMC steps
on its bound energy, the graph only through the last), beside a loop that encodes the observations
anew at every MCMC step, and ours with a compiled encoder. All compute the same loss from the same
weights and noise; each side runs in a process of its own, in turns, and the best turn counts. Then
the time from launching `python -m models.train --preset debug` to its first loss.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.config import SamplerConfig, preset
from models.losses import Batch, training_loss
from models.mcmc import train_descend
from models.model import EBVLA
from models.schedule import Draw, TrainConfig
from models.text import MINILM_SIZE
from studio import demos
from studio.places import ROOT

WORDS = 20  # tokens of an instruction
BDDL = "(define (problem benchmark)\n  (:domain robosuite)\n)\n"
Loss = Callable[[EBVLA, Batch, Draw, SamplerConfig, torch.Generator, str], tuple[Tensor, dict]]


def naive_loss(
    model: EBVLA,
    batch: Batch,
    draw: Draw,
    sampler: SamplerConfig,
    generator: torch.Generator,
    precision: str,
) -> tuple[Tensor, dict[str, float]]:
    """`training_loss` with a new encoding of the observations at every MCMC step."""
    autocast = torch.autocast("cpu", torch.bfloat16, precision == "bfloat16")
    readout = torch.empty(0)

    def energy(actions: Tensor) -> Tensor:
        nonlocal readout
        with autocast:
            context = model.backbone(batch.images, batch.proprio, batch.text, batch.text_mask)
            bound = model.head.bind(context).float()
            readout = model.read_out(context).float()
        return bound(actions)

    def frozen(actions: Tensor) -> Tensor:
        with autocast:
            return energy(actions).float()

    def normal(like: Tensor) -> Tensor:
        return batch.normal(like, generator)

    target = batch.actions.unsqueeze(1)
    noise = sampler.init_std * normal(target)
    final = train_descend(energy, frozen, noise, draw.steps, draw.step_size, sampler, normal)
    l1, readout_l1 = (final - target).abs().mean(), (readout - batch.actions).abs().mean()
    return l1 + readout_l1, {"l1": l1.item(), "readout_l1": readout_l1.item()}


COMPILED = "ours, --compile"
LOSSES: dict[str, Loss] = {
    "encoded at every MCMC step": naive_loss,
    "ours": training_loss,
    COMPILED: training_loss,
}


def random_batch(model: EBVLA, size: int) -> Batch:
    """Samples of noise, of the preset's shapes."""
    c = model.config
    words = c.text == "qwen"
    return Batch(
        images=torch.randint(
            0, 256, (size, c.views, c.image_size, c.image_size, 3), dtype=torch.uint8
        ),
        proprio=torch.randn(size, c.proprio_dim),
        text=torch.randint(0, 1000, (size, WORDS)) if words else torch.randn(size, 1, MINILM_SIZE),
        text_mask=torch.ones(size, WORDS, dtype=torch.long) if words else None,
        actions=torch.rand(size, c.horizon, c.action_dim) * 2 - 1,
        part=slice(0, size),
        size=size,
    )


def train(side: str, batch_size: int, threads: int) -> tuple[float, float, float]:
    """Samples per second, peak memory in MB and the last loss; K over the paper's whole range."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = EBVLA(preset("eb-vla-tiny"))
    if side == COMPILED:
        model.backbone.compile()
    rate, loss = steps(model, random_batch(model, batch_size), LOSSES[side])
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, loss


def steps(model: EBVLA, batch: Batch, loss_of: Loss = training_loss) -> tuple[float, float]:
    """Samples per second and the last loss of optimiser steps, K over the paper's whole range."""
    config, generator = TrainConfig(steps=1), torch.Generator(batch.actions.device).manual_seed(0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, fused=True)
    ks, start = (config.k_min, (config.k_min + config.k_max) // 2, config.k_max), 0.0
    for k in (1, *ks):  # the first warms up
        loss, _ = loss_of(model, batch, Draw(k, 0.22, 1), config.sampler, generator, "bfloat16")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        last = loss.item()  # waits for the device
        start = start or time.perf_counter()
    return len(ks) * batch.size / (time.perf_counter() - start), last


def compare(batch_size: int, threads: int, turns: int) -> None:
    """Print the table of all sides."""
    print("| training, tiny preset | samples/s | ratio | peak memory, MB | loss |")
    print("|---|---|---|---|---|")
    best: dict[str, tuple[float, float, float]] = {}
    for _ in range(turns):
        for side in LOSSES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(train, (side, batch_size, threads))
            best[side] = max(found, best.get(side, found))
    naive, *_ = next(iter(best.values()))
    for side, (rate, memory, loss) in best.items():
        print(f"| {side} | {rate:.1f} | {rate / naive:.1f}x | {memory:.0f} | {loss:.4f} |")
    print()


def write_demonstrations(folder: Path, steps: int = 20) -> None:
    """Two demonstrations of noise in LIBERO's format."""
    chance = np.random.default_rng(0)
    bddl = folder / "benchmark.bddl"
    bddl.write_text(BDDL)
    parts = [folder / ".parts" / f"{i}.hdf5" for i in range(2)]
    for part in parts:
        actions = chance.uniform(-1, 1, (steps, 7))
        images = {
            camera: chance.integers(0, 256, (steps, 128, 128, 3), np.uint8)
            for camera in demos.IMAGE_KEYS
        }
        demo = demos.Demonstration(
            images=images,
            proprio=chance.normal(size=(steps, 8)).astype(np.float32),
            joints=np.zeros((steps, 7)),
            states=np.zeros((steps, 10)),
            actions=actions,
            executed_actions=actions,
            model_xml="",
        )
        demos.write_part(part, demo)
    header = demos.task_header(bddl, "measure the time", "fast")
    demos.assemble(demos.demo_path(folder, "benchmark"), header, [(p, demos.PART) for p in parts])


def first_loss() -> float:
    """Seconds from launching the debug preset to its first line with a loss."""
    with tempfile.TemporaryDirectory() as folder:
        write_demonstrations(Path(folder))
        command = [
            sys.executable, "-m", "models.train", "--preset", "debug", "--data", folder,
            "--out", f"{folder}/run", "--steps", "1", "--log-every", "1", "--device", "cpu",
        ]  # fmt: skip
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                if line.startswith("step"):
                    return time.perf_counter() - start
        raise RuntimeError(f"models.train ended without a loss, status {child.returncode}")


def main() -> None:
    """Run and print."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--batch-size", type=int, default=64, help="64: the shipped checkpoint's")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--turns", type=int, default=2)
    args = p.parse_args()
    compare(args.batch_size, args.threads, args.turns)
    print(f"launch to first loss, debug preset: {first_loss():.1f} s")


if __name__ == "__main__":
    main()
