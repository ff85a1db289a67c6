"""What each training step sees: a function of the run's seed and the step's number alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.augment import augment
from models.data import Demonstrations
from models.features import FeatureCache
from models.losses import Batch
from models.normalize import Statistics
from models.paraphrase import paraphrases
from models.ranks import Ranks
from models.schedule import TrainConfig
from models.text import Text

MISMATCHED = 4  # one in so many samples is also seen with another moment's picture


class Batches:
    """Samples of the demonstrations as tensors on the device of `ranks`.

    train_rows: the samples to learn from. `features`, once there are any, stand for the pictures of
    training batches.
    """

    def __init__(
        self,
        data: Demonstrations,
        train_rows: np.ndarray,
        statistics: Statistics,
        config: TrainConfig,
        text: Text,
        ranks: Ranks,
    ) -> None:
        self.features: FeatureCache | None = None
        self._data, self._train_rows, self.statistics = data, train_rows, statistics
        self._config, self._device = config, ranks.device
        self._part = ranks.part(config.batch_size)  # this process's part of a batch
        # Wording v of instruction i is text i * wordings + v; the first is the instruction itself.
        wordings = [t for s in data.instructions for t in paraphrases(s, config.wordings)]
        self.text, self.text_mask = text(wordings)

    def rows(self, step: int) -> np.ndarray:
        """A step's samples, of all processes; epochs are permutations seeded by their number."""
        n, size = len(self._train_rows), self._config.batch_size
        positions = np.arange(step * size, (step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            order = np.random.default_rng([self._config.seed, 1, epoch]).permutation(n)
            mine = positions // n == epoch
            rows[mine] = self._train_rows[order[positions[mine] % n]]
        return rows

    def training(self, step: int, seed: int) -> Batch:
        """This process's part of a step's batch: augmented, and told in other words."""
        rows, size = self.rows(step)[self._part], self._config.batch_size
        generator = torch.Generator().manual_seed(seed)
        if self.features:
            images = self.features.draw(rows, generator, self._part, size)
        else:
            images = augment(self._tensor(self._data.images[rows]), generator, self._part, size)
        wording = self._wording(size, generator)[self._part]
        batch = self._batch(rows, images, wording)
        if self._config.contrast:
            batch = replace(batch, mismatched=self._mismatched(rows, step))
        return batch

    def plain(self, rows: np.ndarray) -> Batch:
        """Samples as they are."""
        images = self._tensor(self._data.images[rows])
        return self._batch(rows, images, torch.zeros(len(rows), dtype=torch.long))

    def _batch(self, rows: np.ndarray, images: Tensor, wording: Tensor) -> Batch:
        text = torch.from_numpy(self._data.task[rows]) * self._config.wordings + wording
        return Batch(
            images=images.to(self._device),
            proprio=self._tensor(self.statistics.standardize(self._data.proprio[rows])),
            text=self.text[text].to(self._device),
            text_mask=None if self.text_mask is None else self.text_mask[text].to(self._device),
            actions=self._tensor(self.statistics.normalize(self._data.actions[rows])),
            part=self._part,
            size=self._config.batch_size,
        )

    def _mismatched(self, rows: np.ndarray, step: int) -> Tensor:
        """What a quarter of the samples see, agentview of another moment of the task."""
        rng = np.random.default_rng([self._config.seed, 2, step])
        rows = rows[: max(1, len(rows) // MISMATCHED)]
        others = self._data.other_moments(rows, self._train_rows, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if self.features:
            seen, elsewhere = (
                self.features.draw(some, generator, slice(None), len(some))
                for some in (rows, others)
            )
            seen[:, 0] = elsewhere[:, 0]
            return seen.to(self._device)
        images = self._data.images[rows]
        images[:, 0] = self._data.images[others, 0]
        return augment(self._tensor(images), generator)

    def _wording(self, size: int, generator: torch.Generator) -> Tensor:
        """Numbers of the wordings that `size` samples hear; half the time the instruction's own."""
        if self._config.wordings == 1:
            return torch.zeros(size, dtype=torch.long)
        other = torch.randint(1, self._config.wordings, (size,), generator=generator)
        return other * torch.randint(0, 2, (size,), generator=generator)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)
