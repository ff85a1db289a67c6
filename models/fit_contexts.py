"""Fit a checkpoint's context statistics to its training data; the trainer does so when it ends.

`python -m models.fit_contexts runs/tiny/last --data data`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models import contexts
from models.checkpoint import CALIBRATION, write_calibration
from models.contexts import ContextStatistics
from models.data import Demonstrations, load_demonstrations, training_rows
from models.policy import Policy
from models.schedule import TrainConfig
from models.types import CAMERAS, Observation

SAMPLES = 2000  # encoded at most, spread evenly over the data
BATCH = 64
SCORE = "context_distance"  # of a plan, by these statistics


def fit(
    checkpoint: Path, data: Demonstrations, train_rows: np.ndarray, device: str = "auto"
) -> None:
    """Write the statistics of the samples `train_rows` of `data` into the folder.

    A calibration there loses what was measured with earlier ones.
    Raises CheckpointError, ValueError, OSError.
    """
    policy = Policy.from_pretrained(checkpoint, device)
    used = np.unique(train_rows)
    rows = used[np.linspace(0, len(used) - 1, min(len(used), SAMPLES)).astype(int)]
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    found = [policy.summarize([_observation(data, row) for row in part]) for part in parts]
    contexts.write(checkpoint, ContextStatistics.fit(torch.from_numpy(np.concatenate(found))))
    before = policy.calibration
    if before and before.score == SCORE:
        (checkpoint / CALIBRATION).unlink()
    elif before and SCORE in before.levels:
        levels = {name: level for name, level in before.levels.items() if name != SCORE}
        write_calibration(checkpoint, replace(before, levels=levels))


def _observation(data: Demonstrations, row: int) -> Observation:
    images = dict(zip(CAMERAS, data.images[row], strict=True))
    return Observation(images, data.proprio[row], data.instructions[data.task[row]])


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and store; exit code 2 on bad input."""
    p = argparse.ArgumentParser(prog="python -m models.fit_contexts", description=__doc__)
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--data", type=Path, required=True, help="what the checkpoint was trained on")
    p.add_argument("--device", default="auto")
    args = p.parse_args(argv)
    try:
        config = Policy.from_pretrained(args.checkpoint, "cpu").config
        data = load_demonstrations(args.data, config.horizon, 4, config.action_dim)
        train_rows, _ = training_rows(data, TrainConfig(steps=1))
        fit(args.checkpoint, data, train_rows, args.device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
