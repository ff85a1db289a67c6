"""Descents as CUDA graphs: K MCMC steps start as one launch instead of some thousand from Python.

At batch 1 the head's kernels are shorter than their launches, so the GPU would mostly wait.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from models.action_head import BoundHead
from models.config import SamplerConfig
from models.mcmc import Descent, descend

KEPT = 8  # graphs: one per size and sampler in use, each with its own buffers
MOST = 1024  # action tokens at once: with more, kernels outlast their launches

_log = logging.getLogger(__name__)
_capturing = threading.Lock()  # one at a time in a process, whichever policy's


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, the buffers that it reads and the result that it writes."""

    graph: Any  # torch.cuda.CUDAGraph, which builds without CUDA lack
    stream: Any  # that it was captured on; what libraries set up for it is the graph's, too
    inputs: list[Tensor]
    result: Descent

    def replay(self, inputs: list[Tensor]) -> Descent:
        """Overwritten by the next one."""
        for buffer, value in zip(self.inputs, inputs, strict=True):
            buffer.copy_(value)
        self.graph.replay()
        return self.result


class CapturedDescents:
    """`descend` for the bound heads of one module; on a CUDA device by graphs, kept by shape.

    One thread at a time. Batches are filled up to the next power of two, so that sizes are few. A
    descent that may stop early (`grad_cutoff`) asks the GPU at each step and can't be captured; it
    is run as it is, and so are large batches, what is asked for the first time (somebody may try
    out samplers: a capture costs some descents and another's graph), and everything when a capture
    has failed for another reason than memory.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, _Captured] = OrderedDict()
        self._asked: deque[tuple] = deque(maxlen=KEPT)  # once so far
        self._usable = True

    def __call__(
        self,
        energy: BoundHead,
        initial: Tensor,
        noise: Tensor,
        config: SamplerConfig,
        stop: Callable[[], bool] | None = None,
    ) -> Descent:
        """As `models.mcmc.descend`; a graph is over before it could be stopped."""
        count = energy.size
        tokens = _filled_up(count) * initial[0, ..., 0].numel()
        fits = initial.device.type == "cuda" and tokens <= MOST
        if config.grad_cutoff or not (fits and self._usable):
            return descend(energy, initial, noise, config, stop)
        full = energy.map(lambda t: _filled(t, 0)), _filled(initial, 0), _filled(noise, 1)
        inputs = [*full[0].tensors, *full[1:]]
        key = (config, *((t.shape, t.dtype) for t in inputs))
        if key not in self._kept:
            if key not in self._asked:
                self._asked.append(key)
                return descend(energy, initial, noise, config, stop)
            self._asked.remove(key)
            try:
                # A graph takes its stream's workspaces with it: nobody else's may be on that.
                stream = None
                if len(self._kept) == KEPT:
                    stream = self._kept.popitem(last=False)[1].stream
                self._kept[key] = _capture(*full, config, stream)
            except RuntimeError as error:
                self._usable = isinstance(error, torch.OutOfMemoryError)
                _log.warning("no CUDA graph for this plan, it takes longer", exc_info=error)
                return descend(energy, initial, noise, config, stop)
        self._kept.move_to_end(key)
        return _first(count, self._kept[key].replay(inputs))


def _filled_up(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _filled(rows: Tensor, dim: int) -> Tensor:
    """Up to the next power of two along `dim`, with the last row again."""
    count = rows.shape[dim]
    lacking = _filled_up(count) - count
    last = rows.narrow(dim, count - 1, 1)
    return torch.cat([rows, last.repeat_interleave(lacking, dim)], dim) if lacking else rows


def _first(count: int, descent: Descent) -> Descent:
    """Copies of the first `count` contexts' part."""
    parts = {f.name: getattr(descent, f.name) for f in fields(Descent)}
    axis = dict.fromkeys(parts, 1) | {"updates": 0}  # of the contexts
    return Descent(**{n: part.narrow(axis[n], 0, count).clone() for n, part in parts.items()})


def _capture(
    energy: BoundHead, initial: Tensor, noise: Tensor, config: SamplerConfig, stream: Any = None
) -> _Captured:
    """The graph of one descent, on `stream` if given. Raises RuntimeError when the device can't."""
    device = initial.device
    here = torch.cuda.current_stream(device)
    # The outer stream comes back even when a capture breaks off.
    with _capturing, torch.cuda.device(device), torch.cuda.stream(here):
        own = energy.map(Tensor.clone)
        start, jitter = initial.clone(), noise.clone()
        aside = stream or torch.cuda.Stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # libraries set themselves up for it
            descend(own, start, jitter, config)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # thread_local: landscapes of other threads may use the device meanwhile.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            result = descend(own, start, jitter, config)
    return _Captured(graph, aside, [*own.tensors, start, jitter], result)
