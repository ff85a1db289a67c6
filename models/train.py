"""Train an EB-VLA on demonstrations: LIBERO's HDF5 or LeRobotDataset v3.

    python -m models.train --preset eb-vla-tiny --data DEMOS --out runs/tiny --minutes 60
    python -m models.train --preset debug --data DEMOS --out runs/debug --steps 50
    python -m models.train --preset eb-vla-tiny --data DEMOS --out runs/tiny --minutes 90 --resume
    torchrun --nproc-per-node 8 -m models.train --preset eb-vla-0.5b --pretrained ... (8 GPUs)

OUT receives config.json (every number of the run), metrics.jsonl and TensorBoard event files (a
line every 20 steps, and one per validation), last/ and best/ (checkpoints of the averaged weights,
replaced whole) and trainer_state.pt (for --resume). One run at a time writes into OUT.

SIGTERM and SIGINT end the run after its step: it saves, says "stopped at step N; --resume goes on"
and exits with 143 or 130 (torchrun leaves it 30 seconds for that unless given --shutdown-timeout).
With --steps, --resume continues as if it had never stopped, on a CPU bit
for bit; with --minutes the clock decides what a step learns, and no two runs are the same. Bad
input, a full disk or too little memory are one line and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import signal
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.checkpoint import sweep
from models.config import HEADS, HUB, PRESETS, preset
from models.data import load_demonstrations
from models.fit_contexts import fit
from models.policy import choose_device
from models.pretrained import load_pretrained
from models.ranks import Ranks
from models.run import SETTINGS, StopSignal, claim, no_memory
from models.schedule import AUTO_PRECISIONS, TrainConfig
from models.text import build_text
from models.trainer import Trainer
from models.trajectory import PIXELS
from models.whole import write_json

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file


def parser() -> argparse.ArgumentParser:
    """The command line; option names match the fields of `TrainConfig`."""
    p = argparse.ArgumentParser(
        prog="python -m models.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--preset", choices=PRESETS, default="eb-vla-tiny", help="architecture")
    p.add_argument("--head", choices=HEADS, default="energy",
                   help="energy is the paper's; the others are there to compare with")  # fmt: skip
    p.add_argument("--data", type=Path, required=True,
                   help="folder of demonstrations: *.hdf5, LeRobotDataset v3")  # fmt: skip
    p.add_argument("--out", type=Path, required=True, help="folder of this run")
    p.add_argument("--resume", action="store_true", help="continue the run in OUT")
    p.add_argument("--init", type=Path, help="checkpoint folder to start from (fine-tuning)")
    p.add_argument("--stride", type=int, default=2, help="a sample every n-th step (default 2)")
    p.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    p.add_argument("--pixels", choices=PIXELS,
                   help="renderer of the demonstrations (default: as they say)")  # fmt: skip
    p.add_argument("--pretrained", nargs="?", const=HUB, metavar="FOLDER",
                   help="eb-vla-0.5b: start from Qwen2.5, DINOv2 and SigLIP, of the hub or of a "
                   "folder with one folder for each")  # fmt: skip
    group = p.add_argument_group("schedule (ends at whichever of --steps, --minutes comes first)")
    group.add_argument("--steps", type=int, help="optimiser steps")
    group.add_argument("--minutes", type=float, help="training time")
    for name, text in OPTIONS.items():
        default, option = getattr(DEFAULTS, name), f"--{name.replace('_', '-')}"
        if default is False:
            group.add_argument(option, action="store_true", help=text)
        else:
            text = f"{text} (default {default})"
            group.add_argument(
                option, type=type(default), default=default, choices=CHOICES.get(name), help=text
            )
    return p


WRITTEN = ("last", "best")
DEFAULTS = TrainConfig(steps=1)
NAMED = ("preset", "head", "data", "stride", "init")  # settings beside `TrainConfig`
DIGEST = "digest"  # of the samples, among the settings
CHOICES = {
    "precision": AUTO_PRECISIONS,
    "eval_suite": ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"),
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
    "contrast": "weight of the contrastive term (losses.py); the paper has none",
    "human_weight": "how often a person's chunk of a recording is drawn beside a demonstration's",
    "policy_weight": "the same of the policy's own chunks there",
    "balance": "of the tasks: 0 every sample counts alike, 1 every task does",
    "opening_weight": "how often the first chunk of a demonstration is drawn beside the others",
    "wordings": "of each instruction, by rule; 1 leaves it as given",
    "val_fraction": "share of the demonstrations held out",
    "val_every": "steps between validations, which also save",
    "log_every": "steps between lines of metrics",
    "seed": "of everything drawn by chance",
    "precision": "of all but the last MCMC step; auto is bfloat16 where the device computes in it",
    "gradient_checkpointing": "of the language model: less memory, more time",
    "compile": "the encoder, by a C++ compiler: faster steps, the first takes a minute",
    "cache_features": "eb-vla-0.5b: copies of each sample's vision features on disk, instead of "
    "computing them in every step; 1 is without augmentation; 0 none",
    "eval_every": "steps between evaluations in the simulator, which choose best/; 0 none",
    "eval_suite": "suite of these evaluations",
    "eval_tasks": "their tasks",
    "eval_inits": "their initial states; they choose best/, so report others",
}


def main(argv: list[str] | None = None) -> int:
    """Run the trainer; returns the exit status. Bad input is one line on stderr."""
    args = parser().parse_args(argv)
    # Compiled kernels: not in /tmp, where others could lay theirs.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache/eb-vla-studio"))
    try:
        config = TrainConfig(
            steps=args.steps,
            minutes=args.minutes,
            **{n: getattr(args, n) for n in OPTIONS},
        )
        if args.threads is not None:
            if args.threads < 1:
                raise ValueError(f"training: --threads must be at least 1: {args.threads}")
            torch.set_num_threads(args.threads)
        if "LOCAL_RANK" in os.environ and torch.cuda.is_available():  # each process its own GPU
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        device = str(choose_device(args.device))
        ranks = Ranks(device)
        with claim(args.out, args.resume) if ranks.main else nullcontext():
            if ranks.main:
                for name in WRITTEN:
                    sweep(args.out / name)
            return train(args, config, device)
    except KeyboardInterrupt:
        print("interrupted; what was saved is whole", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError, MemoryError, FloatingPointError, RuntimeError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2


def train(args: argparse.Namespace, config: TrainConfig, device: str) -> int:
    """Build the trainer and run it; returns the exit status."""
    trainer = build(args, config, device)
    print(
        f"{args.preset}: {sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
        f"{len(np.unique(trainer.train_rows)):,} samples "
        f"of {len(trainer.data.instructions)} tasks, "
        f"{len(trainer.val_rows):,} held out, on {trainer.ranks.count} x {trainer.device}, "
        f"{trainer.precision}",
        flush=True,
    )
    with StopSignal() as stop:
        try:
            finished = trainer.run(stop)
        except RuntimeError as error:
            if not (stop.number and of_compiler(error)):
                raise
            finished = False  # a stop in the first step ends the compiler, too
    if finished and trainer.ranks.main:
        for name in WRITTEN:
            if (args.out / name).is_dir():
                fit(args.out / name, trainer.data, trainer.train_rows, device)
    trainer.ranks.leave()
    if finished:
        return 0
    print(f"stopped at step {trainer.step}; --resume goes on", flush=True)
    return 128 + (stop.number or signal.SIGTERM)


def build(args: argparse.Namespace, config: TrainConfig, device: str) -> Trainer:
    """The trainer with its data and weights, its settings written to OUT.

    Raises ValueError or OSError for data, weights or a device that cannot be used.
    """
    if args.stride < 1:
        raise ValueError(f"training: --stride must be at least 1: {args.stride}")
    model = replace(preset(args.preset), head=args.head)
    if model.has_pretrained_parts and not (args.pretrained or args.init or args.resume):
        raise ValueError(
            f"training: {args.preset} starts from pretrained parts; --pretrained takes them from "
            "the hub, --pretrained FOLDER from a folder"
        )
    parts = None if args.pretrained in (None, HUB) else Path(args.pretrained)
    text = build_text(model.text, args.out / "last" if args.resume else args.init, parts)
    data = load_demonstrations(args.data, model.horizon, args.stride, model.action_dim)
    trainer = Trainer(model, config, data, args.out, device, args.pixels, text)
    if args.pretrained and not args.resume:
        load_pretrained(trainer.model.backbone, parts)
        trainer.average.load_state_dict(trainer.model.state_dict())
    if args.resume:
        trainer.resume()
    else:
        check_room(args.out, trainer.model)
    if args.init and not args.resume:
        trainer.start_from(args.init)
    if trainer.ranks.main:
        if config.eval_every:
            trainer.evaluation.check()
        settings = {n: getattr(args, n) for n in NAMED} | {"pixels": trainer.pixels}
        settings = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
        settings |= {"device": trainer.device, "processes": trainer.ranks.count}
        settings |= {DIGEST: data.digest(), "train": asdict(config)}
        if args.resume:
            tell_changes(args.out / SETTINGS, settings)
        write_json(args.out / SETTINGS, settings)
    return trainer


def check_room(out: Path, model: torch.nn.Module) -> None:
    """Raises ValueError when the run's checkpoints and state can't find room on the disk."""
    weights = sum(p.nbytes for p in model.parameters())
    moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    state = 2 * weights + moments  # twice while it is replaced
    needed, free = 2 * weights + 2 * state, shutil.disk_usage(out).free  # last, best and the state
    if needed > free:
        raise ValueError(
            f"{out}: {free // 2**20} MB are free, the run's checkpoints need {needed // 2**20}"
        )


def tell_changes(file: Path, settings: dict[str, Any]) -> None:
    """One line naming what a run was begun with and is not resumed with; ends may move."""

    def flat(told: dict[str, Any]) -> dict[str, Any]:
        return {**told, **told.get("train", {}), "train": None, "steps": None, "minutes": None}

    try:
        before = flat(json.loads(file.read_text()))
    except (OSError, ValueError):
        return
    now = flat(json.loads(json.dumps(settings)))
    changed = [n for n in now if n in before and before[n] != now[n]]
    words = [f"{n.replace('_', '-')} {now[n]} (was {before[n]})" for n in changed if n != DIGEST]
    if DIGEST in changed:
        words.append("other demonstrations")
    if words:
        print(f"resumed with {', '.join(words)}", flush=True)


def of_compiler(error: Exception) -> bool:
    """Whether `--compile` raised it."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def explain(error: Exception) -> str:
    """One line for an error that ends a run.

    Raises the error itself when it is a programming one.
    """
    text = " ".join(str(error).split())
    if no_memory(error):
        return (
            "out of memory; use a smaller --batch-size or, if it was still reading the "
            f"demonstrations, a larger --stride ({text[:120]})"
        )
    if of_compiler(error):
        return f"the encoder can't be compiled here; leave --compile out ({text[:300]})"
    if isinstance(error, RuntimeError):
        raise error
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk is full, make room and --resume; checkpoints so far are whole ({text})"
    return text


if __name__ == "__main__":
    sys.exit(main())
