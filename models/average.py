"""The mean of a checkpoint's weights and those of one that was fine-tuned from it.

`python -m models.average runs/tiny/last runs/finer/last --out runs/mean` keeps more of what the
first can do than the second does (WiSE-FT, Wortsman et al. 2022). Context statistics
(`models.fit_contexts`) and the calibration are to be measured anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.checkpoint import load_checkpoint, save_checkpoint
from models.text import build_text


def average(first: Path, second: Path, out: Path, weight: float = 0.5) -> None:
    """Write (1 - weight) · first + weight · second, described as `second` is.

    Raises CheckpointError or ValueError for folders that can't be used together, OSError when `out`
    cannot be written.
    """
    if not 0 <= weight <= 1:
        raise ValueError("--weight must lie in [0, 1]")
    one, two = load_checkpoint(first), load_checkpoint(second)
    if one.model.config != two.model.config:
        raise ValueError(f"{second}: another architecture than {first}")
    if one.statistics.to_json() != two.statistics.to_json():
        raise ValueError(f"{second}: other scales than {first}; fine-tune from it with --init")
    weights = one.model.state_dict()
    for name, value in two.model.state_dict().items():
        if value.is_floating_point():
            value.lerp_(weights[name], 1 - weight)  # in place: the model's own
    record = replace(two.info.training, val_l1=None, readout_l1=None)
    text = build_text(two.model.config.text, second)
    save_checkpoint(out, two.model, two.statistics, record, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the mean; exit code 2 on bad input."""
    p = argparse.ArgumentParser(prog="python -m models.average", description=__doc__)
    p.add_argument("first", type=Path)
    p.add_argument("second", type=Path)
    p.add_argument("--weight", type=float, default=0.5, help="of the second")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(argv)
    try:
        average(args.first, args.second, args.out, args.weight)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
