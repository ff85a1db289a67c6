"""How far a context lies from those of training: a detector that asks the backbone alone.

The Mahalanobis distance of the mean vision token of the last extracted layer under one Gaussian
fitted to the training contexts (Lee et al. 2018, without classes). It knows nothing of actions, so
it is the baseline that a score of the energy head is to be compared with.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.action_head import Context

FILE = "context_statistics.safetensors"
AGAIN = "delete it, then fit it again: python -m models.fit_contexts CHECKPOINT --data DIR"
SHRINKAGE = 1e-3  # of the mean variance, added to each: few samples leave directions unseen


def summary(context: Context) -> Tensor:
    """What of C the distance is taken of, float32 [B, D]."""
    return context.vision[-1].float().mean(1)


@dataclass(frozen=True, slots=True)
class ContextStatistics:
    """Mean [D] and inverse covariance [D, D] of `summary` over training contexts."""

    mean: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, summaries: Tensor) -> ContextStatistics:
        """From [N, D]. Raises ValueError for fewer than two."""
        if len(summaries) < 2:
            raise ValueError(f"context statistics need two samples or more, not {len(summaries)}")
        covariance = summaries.double().T.cov()
        variance = covariance.diagonal().mean().clamp_min(1e-12)
        covariance.diagonal().add_(SHRINKAGE * variance)
        return cls(summaries.mean(0).float(), torch.linalg.inv(covariance).float().contiguous())

    def distance(self, summaries: Tensor) -> Tensor:
        """Mahalanobis distance of [B, D], [B]; over √D it is near 1 for a training context."""
        away = summaries - self.mean
        squared = torch.einsum("bd,de,be->b", away, self.precision, away)
        return (squared.clamp_min(0) / len(self.mean)).sqrt()

    def to(self, device: torch.device) -> ContextStatistics:
        """The same on a device."""
        return ContextStatistics(self.mean.to(device), self.precision.to(device))


def read(folder: Path, size: int) -> ContextStatistics | None:
    """A checkpoint's statistics for hidden size `size`, or None. Raises ValueError if malformed."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        found = ContextStatistics(**load_file(file))
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{file}: truncated or malformed ({error}); {AGAIN}") from None
    if found.mean.shape != (size,) or found.precision.shape != (size, size):
        raise ValueError(f"{file}: of another model than the weights; {AGAIN}")
    return found


def write(folder: Path, statistics: ContextStatistics) -> None:
    """Store the statistics with their checkpoint, atomically. Raises OSError on a full disk."""
    fresh = folder / f".{FILE}.tmp"
    try:
        save_file({"mean": statistics.mean, "precision": statistics.precision}, fresh)
    except SafetensorError as error:  # how safetensors reports a failed write
        fresh.unlink(missing_ok=True)
        raise OSError(errno.ENOSPC, f"{FILE} could not be written, {error}") from None
    fresh.chmod(0o644)  # safetensors lets nobody else read
    os.replace(fresh, folder / FILE)
