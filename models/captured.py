"""Descents as CUDA graphs: K MCMC steps start as one launch instead of some thousand from Python.

At batch 1 the head's kernels are shorter than their launches, so the GPU would mostly wait.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from models.action_head import BoundHead
from models.config import SamplerConfig
from models.mcmc import Descent, descend

KEPT = 8  # graphs: one per batch size and sampler in use, each with its own buffers
MOST = 4  # contexts at once: with more, kernels outlast their launches, and sizes vary too much
WARM_UPS = 3  # before a capture, as PyTorch asks for: libraries set themselves up

_log = logging.getLogger(__name__)
_capturing = threading.Lock()  # one at a time in a process, whichever policy's


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, the buffers that it reads and the result that it writes."""

    graph: Any  # torch.cuda.CUDAGraph, which builds without CUDA lack
    inputs: list[Tensor]
    result: Descent

    def replay(self, inputs: list[Tensor]) -> Descent:
        for buffer, value in zip(self.inputs, inputs, strict=True):
            buffer.copy_(value)
        self.graph.replay()
        # Copies: the next replay writes over the graph's own.
        return Descent(*(getattr(self.result, f.name).clone() for f in fields(Descent)))


class CapturedDescents:
    """`descend` for the bound heads of one module; on a CUDA device by graphs, kept by shape.

    One thread at a time. A descent that may stop early (`grad_cutoff`) asks the GPU at each step
    and can't be captured; it is run as it is, and so are large batches, what is asked for the first
    time (somebody may try out samplers: a capture costs a dozen descents and another's graph), and
    everything when a capture has failed for another reason than memory.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, _Captured] = OrderedDict()
        self._asked: deque[tuple] = deque(maxlen=KEPT)  # once so far
        self._usable = True

    def __call__(
        self, energy: BoundHead, initial: Tensor, noise: Tensor, config: SamplerConfig
    ) -> Descent:
        """As `models.mcmc.descend`."""
        fits = initial.device.type == "cuda" and energy.size <= MOST and not config.grad_cutoff
        if not (fits and self._usable):
            return descend(energy, initial, noise, config)
        inputs = [*energy.tensors, initial, noise]
        key = (config, *((t.shape, t.dtype) for t in inputs))
        if key not in self._kept:
            if key not in self._asked:
                self._asked.append(key)
                return descend(energy, initial, noise, config)
            self._asked.remove(key)
            try:
                self._kept[key] = _capture(energy, initial, noise, config)
            except RuntimeError as error:
                self._usable = isinstance(error, torch.OutOfMemoryError)
                _log.warning("no CUDA graph for this plan, it takes longer: %s", error)
                return descend(energy, initial, noise, config)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key].replay(inputs)


def _capture(energy: BoundHead, initial: Tensor, noise: Tensor, config: SamplerConfig) -> _Captured:
    """The graph of one descent. Raises RuntimeError when the device can't."""
    device = initial.device
    here = torch.cuda.current_stream(device)
    # The outer stream comes back even when a capture breaks off.
    with _capturing, torch.cuda.device(device), torch.cuda.stream(here):
        own = energy.map(Tensor.clone)
        start, jitter = initial.clone(), noise.clone()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                descend(own, start, jitter, config)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # thread_local: landscapes of other threads may use the device meanwhile.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            result = descend(own, start, jitter, config)
    return _Captured(graph, [*own.tensors, start, jitter], result)
