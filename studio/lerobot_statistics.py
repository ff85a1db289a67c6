"""The statistics of a LeRobotDataset: per feature min, max, mean, std, quantiles, count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def statistics_of(
    table: pa.Table, levels: Mapping[str, np.ndarray], side: int
) -> dict[str, dict[str, list]]:
    """Statistics of every feature of `table` and of the pictures, as meta/stats.json holds them.

    levels: `level_counts` per camera key, of pictures with `side` pixels a side.
    """
    found = {key: _picture_statistics(counts, side) for key, counts in levels.items()}
    for key in table.column_names:
        values = table[key].combine_chunks()
        if isinstance(values, pa.FixedSizeListArray):
            width = values.type.list_size
            values = values.flatten().to_numpy().reshape(-1, width)
        found[key] = _number_statistics(np.asarray(values, np.float64).reshape(len(table), -1))
    return found


def _number_statistics(values: np.ndarray) -> dict[str, list]:
    """Statistics along the first axis of [n, d]."""
    found = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    found |= {name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


def level_counts(pictures: np.ndarray) -> np.ndarray:
    """How often each of the 256 levels occurs, int64 [3, 256], in uint8 [n, S, S, 3]."""
    channels = np.moveaxis(pictures, -1, 0).reshape(3, -1)
    return np.stack([np.bincount(channel, minlength=256) for channel in channels])


def _picture_statistics(counts: np.ndarray, side: int) -> dict[str, list]:
    """Statistics per channel, levels scaled to [0, 1], each of shape [3, 1, 1]."""
    level = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ level
    below = np.cumsum(share, axis=1)
    found = {
        "min": level[(counts > 0).argmax(1)],
        "max": level[255 - (counts[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ level**2 - mean**2, 0)),
        **{name: level[(below >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()},
    }
    pictures = {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}
    return pictures | {"count": [int(counts[0].sum()) // side**2]}
