"""What a frozen vision tower makes of the training images, computed once and kept on disk.

The towers of eb-vla-0.5b cost most of a training step and never change, but 2.2 MB of features per
sample are a lot of disk: this is for small data sets and small GPUs. What is augmented must be
augmented before the towers, so a cache holds a fixed number of copies of each sample: one copy is
the images as they are, more are so many augmented ones, of which a step draws.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from models.augment import augment
from models.backbone import Backbone

BATCH = 32


class FeatureCache:
    """float16 [samples, copies, views, T, F] in a .npy file, mapped, with its key beside it."""

    def __init__(self, file: Path, rows: np.ndarray, copies: int, seed: int) -> None:
        self.file, self.rows, self.copies, self.seed = file, rows, copies, seed
        self._values: np.ndarray | None = None

    def fill(
        self,
        backbone: Backbone,
        images: np.ndarray,
        precision: str,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Compute those of images[rows], uint8 [n, views, S, S, 3], unless the file has them.

        False when `stop()` came first. Raises ValueError without a frozen tower or without room
        for the file.
        """
        if not hasattr(backbone.vision, "features"):
            raise ValueError("training: --cache-features needs a preset with frozen vision towers")
        key, note = self._key(backbone, images), self.file.with_suffix(".json")
        if note.is_file() and self.file.is_file() and json.loads(note.read_text()) == key:
            return True
        note.unlink(missing_ok=True)
        fresh = self.file.with_name(f".{self.file.name}.tmp")
        fresh.unlink(missing_ok=True)  # of a run that was killed
        try:
            if not self._compute(fresh, backbone, images, precision, stop):
                return False
            os.replace(fresh, self.file)
        finally:
            fresh.unlink(missing_ok=True)
        note.write_text(json.dumps(key))
        return True

    def draw(self, rows: np.ndarray, generator: torch.Generator, part: slice, size: int) -> Tensor:
        """Features [B, views, T, F] of samples `rows`, `part` of a batch of `size`, a copy each."""
        if self._values is None:
            self._values = np.load(self.file, mmap_mode="r")
        copy = torch.randint(0, self.copies, (size,), generator=generator)[part].numpy()
        return torch.from_numpy(self._values[np.searchsorted(self.rows, rows), copy])

    def _compute(
        self,
        fresh: Path,
        backbone: Backbone,
        images: np.ndarray,
        precision: str,
        stop: Callable[[], bool],
    ) -> bool:
        first = self._features(backbone, images[self.rows[:1]], precision)
        shape = (len(self.rows), self.copies, *first.shape[1:])
        need, free = 2 * int(np.prod(shape)), shutil.disk_usage(fresh.parent).free
        if need > free:
            raise ValueError(
                f"training: --cache-features {self.copies} needs {need / 1e9:.1f} GB in "
                f"{fresh.parent}, {free / 1e9:.1f} GB are free; use 0"
            )
        values = np.lib.format.open_memmap(fresh, "w+", np.float16, shape)
        with fresh.open("r+b") as file:  # a mapped page without room on the disk would be fatal
            os.posix_fallocate(file.fileno(), 0, fresh.stat().st_size)
        chance = torch.Generator().manual_seed(self.seed)
        for start in trange(0, len(self.rows), BATCH, desc="vision features"):
            if stop():
                return False
            some = images[self.rows[start : start + BATCH]]
            for copy in range(self.copies):
                seen = some if self.copies == 1 else augment(torch.from_numpy(some), chance).numpy()
                values[start : start + BATCH, copy] = self._features(backbone, seen, precision)
        values.flush()
        return True

    @torch.no_grad()
    def _features(self, backbone: Backbone, images: np.ndarray, precision: str) -> np.ndarray:
        device = backbone.place.device
        with torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
            return backbone.features(torch.from_numpy(images).to(device)).half().cpu().numpy()

    def _key(self, backbone: Backbone, images: np.ndarray) -> dict[str, str | int]:
        """What the features depend on."""
        tower, pictures = hashlib.blake2b(), hashlib.blake2b()
        for name, weight in backbone.vision.state_dict().items():
            if not name.startswith("project"):
                tower.update(weight.cpu().contiguous().numpy())
        for row in self.rows:
            pictures.update(np.ascontiguousarray(images[row]))
        return {
            "tower": tower.hexdigest(), "images": pictures.hexdigest(),
            "samples": len(self.rows), "copies": self.copies, "seed": self.seed,
        }  # fmt: skip
