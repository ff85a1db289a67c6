"""The processes of one run: a single one, or several started by `torchrun` or `accelerate launch`.

Each step's batch is split evenly over the processes and their gradients are averaged. Chance is
drawn for the whole batch by each of them, so the split does not change what is learned, but for the
contrastive term, which compares the samples of one process. Only the main process writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

PATIENCE = timedelta(hours=12)  # the others wait while the main process validates and evaluates


class Ranks:
    """This process among those of the run; `device` is its own when there are several."""

    def __init__(self, device: str) -> None:
        self._state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
        self.count: int = self._state.num_processes
        self.main: bool = self._state.is_main_process
        self.device = device if self.count == 1 else str(self._state.device)

    def part(self, size: int) -> slice:
        """This process's rows of a batch of `size`. Raises ValueError when it cannot be split."""
        if size % self.count:
            raise ValueError(f"training: --batch-size {size} can't be split over {self.count}")
        own = size // self.count
        return slice(self._state.process_index * own, (self._state.process_index + 1) * own)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.count > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            vector_to_parameters(reduce(parameters_to_vector(gradients), "mean"), gradients)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means over the processes."""
        if self.count == 1:
            return values
        means = reduce(torch.tensor(list(values.values()), device=self.device), "mean")
        return dict(zip(values, means.tolist(), strict=True))

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """The main process's clock, and whether any was asked to stop: the same for all."""
        if self.count == 1:
            return elapsed, stop
        told = torch.tensor([elapsed * self.main, float(stop)], device=self.device)
        clock, stops = reduce(told.double(), "sum").tolist()
        return clock, stops > 0

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()

    def leave(self) -> None:
        """End the communication between them."""
        self._state.destroy_process_group()
