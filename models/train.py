"""Train an EB-VLA on LIBERO HDF5 demonstrations.

    python -m models.train --preset eb-vla-tiny --data DEMOS --out runs/tiny --minutes 60
    python -m models.train --preset debug --data DEMOS --out runs/debug --steps 50
    python -m models.train --preset eb-vla-tiny --data DEMOS --out runs/tiny --minutes 90 --resume

OUT receives config.json (every number of the run), metrics.jsonl and TensorBoard event files (a
line every 20 steps, and one per validation), last/ and best/ (checkpoints of the averaged weights,
replaced whole) and trainer_state.pt (for --resume). One run at a time writes into OUT.

SIGTERM and SIGINT end the run after its step: it saves, says "stopped at step N; --resume goes on"
and exits with 143 or 130; --resume continues with the same numbers as if it had never stopped. Bad
input, a full disk or too little memory are one line and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from models.checkpoint import write_json
from models.config import PRESETS, preset
from models.data import load_demonstrations
from models.policy import choose_device
from models.run import SETTINGS, StopSignal, claim
from models.schedule import TrainConfig
from models.trainer import Trainer

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file


def parser() -> argparse.ArgumentParser:
    """The command line; option names match the fields of `TrainConfig`."""
    p = argparse.ArgumentParser(
        prog="python -m models.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--preset", choices=PRESETS, default="eb-vla-tiny", help="architecture")
    p.add_argument("--data", type=Path, required=True, help="folder of *.hdf5 demonstrations")
    p.add_argument("--out", type=Path, required=True, help="folder of this run")
    p.add_argument("--resume", action="store_true", help="continue the run in OUT")
    p.add_argument("--init", type=Path, help="checkpoint folder to start from (fine-tuning)")
    p.add_argument("--stride", type=int, default=2, help="a sample every n-th step (default 2)")
    p.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    p.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16",
                   help="of all but the last MCMC step (default bfloat16)")  # fmt: skip
    p.add_argument("--pixels", choices=("fast", "faithful"), default="fast",
                   help="renderer of the demonstrations, recorded in the checkpoint")  # fmt: skip
    p.add_argument("--pretrained", action="store_true",
                   help="eb-vla-0.5b: start from the hub's Qwen2.5, DINOv2 and SigLIP")  # fmt: skip
    group = p.add_argument_group("schedule (ends at whichever of --steps, --minutes comes first)")
    group.add_argument("--steps", type=int, help="optimiser steps")
    group.add_argument("--minutes", type=float, help="training time")
    for name, text in OPTIONS.items():
        default = DEFAULTS[name]
        group.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default,
            help=f"{text} (default {default:g})",
        )  # fmt: skip
    return p


DEFAULTS = {
    name: value
    for name, value in ((f, getattr(TrainConfig(steps=1), f)) for f in TrainConfig.__slots__)
    if isinstance(value, int | float)
}
OPTIONS = {
    "batch_size": "samples in a step",
    "lr": "peak learning rate",
    "weight_decay": "AdamW's, on matrices",
    "warmup_steps": "linear warm-up",
    "ema": "decay of the averaged weights",
    "k_min": "least MCMC steps, K_min",
    "k_max": "most MCMC steps, K_max",
    "alpha_min": "least step size, α_min",
    "alpha_max": "largest step size, α_max",
    "warm_fraction": "share of the run with warm-k instead of k",
    "warm_k_min": "least MCMC steps at first",
    "warm_k_max": "most MCMC steps at first",
    "chains_per_sample": "noise chains per encoded observation",
    "wordings": "of each instruction, by synonyms; 1 leaves it as given",
    "val_fraction": "share of the demonstrations held out",
    "val_every": "steps between validations, which also save",
    "log_every": "steps between lines of metrics",
    "seed": "of everything drawn by chance",
}


def main(argv: list[str] | None = None) -> int:
    """Run the trainer; returns the exit status. Bad input is one line on stderr."""
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        config = TrainConfig(
            steps=args.steps,
            minutes=args.minutes,
            precision=args.precision,
            **{n: getattr(args, n) for n in OPTIONS},
        )
        with claim(args.out, args.resume):
            return train(args, config)
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError, MemoryError, FloatingPointError, RuntimeError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2


def train(args: argparse.Namespace, config: TrainConfig) -> int:
    """Build the trainer and run it; returns the exit status."""
    trainer = build(args, config)
    print(
        f"{args.preset}: {sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
        f"{len(trainer.train_rows):,} samples of {len(trainer.data.instructions)} tasks, "
        f"{len(trainer.val_rows):,} held out, on {trainer.device}",
        flush=True,
    )
    with StopSignal() as stop:
        if trainer.run(stop):
            return 0
    print(f"stopped at step {trainer.step}; --resume goes on", flush=True)
    return 128 + stop.number


def build(args: argparse.Namespace, config: TrainConfig) -> Trainer:
    """The trainer with its data and weights, its settings written to OUT.

    Raises ValueError or OSError for data, weights or a device that cannot be used.
    """
    if args.stride < 1:
        raise ValueError(f"training: --stride must be at least 1: {args.stride}")
    model = preset(args.preset)
    device = choose_device(args.device)
    data = load_demonstrations(args.data, model.horizon, args.stride, model.action_dim)
    trainer = Trainer(model, config, data, args.out, str(device), args.pixels)
    if args.pretrained:
        from models.backbone import load_pretrained

        load_pretrained(trainer.model.backbone)
        trainer.average.load_state_dict(trainer.model.state_dict())
    if args.init:
        trainer.start_from(args.init)
    if args.resume:
        trainer.resume()
    settings = {n: getattr(args, n) for n in ("preset", "data", "stride", "pixels", "init")}
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
    write_json(args.out / SETTINGS, {**settings, "device": str(device), "train": asdict(config)})
    return trainer


def explain(error: Exception) -> str:
    """One line for an error that ends a run. Raises the error itself when it is a programming one.

    Memory that runs out is a RuntimeError of several texts, depending on the allocator.
    """
    text = " ".join(str(error).split())
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
    if memory:
        return f"out of memory; use a smaller --batch-size ({text[:120]})"
    if isinstance(error, RuntimeError):
        raise error
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk is full, make room and --resume; checkpoints so far are whole ({text})"
    return text


if __name__ == "__main__":
    sys.exit(main())
