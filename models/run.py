"""What surrounds the training loop: a folder with one writer, a stop that loses nothing, metrics.

claim        the folder of a run, locked for one process
write_state  the trainer's state in that folder, and back
StopSignal   SIGTERM and SIGINT as a flag that the loop reads between two steps
Clock        training time and pace
Metrics      metrics.jsonl and TensorBoard event files in that folder
"""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from models.checkpoint import settle
from models.hold import hold

NO_MEMORY = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
NEEDED = {  # in a state
    *("model", "average", "optimizer", "step", "elapsed", "best", "best_success", "evaluated"),
    *("window", "statistics", "architecture"),
}
STATE, METRICS, SETTINGS = "trainer_state.pt", "metrics.jsonl", "config.json"


@contextmanager
def claim(out: Path, resume: bool) -> Iterator[None]:
    """Hold the folder of a training.

    Raises ValueError when another run writes there, or when it holds a run that `resume` does not
    ask to continue.
    """
    with hold(out):
        if not resume and (out / STATE).exists():
            raise ValueError(f"{out}: holds a run; go on with --resume or choose another --out")
        yield


def write_state(out: Path, state: Mapping[str, Any]) -> None:
    """Replace the state that `read_state` gives. Raises OSError when the disk is full."""
    fresh = out / f".{STATE}.tmp"
    try:
        torch.save(state, fresh)
    except RuntimeError as error:  # how torch reports a failed write
        fresh.unlink(missing_ok=True)
        if no_memory(error):
            raise
        free = shutil.disk_usage(out).free // 2**20
        text = f"{fresh.name} could not be written, {free} MB are free"
        raise OSError(errno.ENOSPC, text) from error
    settle(fresh)
    os.replace(fresh, out / STATE)


def read_state(out: Path, device: str) -> dict[str, Any]:
    """The state of the run in `out`. Raises ValueError when there is none, or another file."""
    file = out / STATE
    if not file.is_file():
        raise ValueError(f"{file}: nothing to resume; start without --resume")
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        if no_memory(error) or isinstance(error, PermissionError):
            raise
        raise ValueError(f"{file}: truncated or not a trainer's state") from None
    if not (isinstance(state, dict) and {"step", "architecture"} <= set(state)):
        raise ValueError(f"{file}: truncated or not a trainer's state")
    if lacking := sorted(NEEDED - set(state)):
        raise ValueError(
            f"{file}: of an earlier version, without {lacking[0]}; start a new run with "
            f"--init {out / 'last'}"
        )
    return state


def no_memory(error: BaseException) -> bool:
    """Whether memory ran out, which is a RuntimeError of several texts: allocators differ."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(text in str(error) for text in NO_MEMORY)


class StopSignal:
    """SIGTERM and SIGINT as a flag; a second one ends the process at once, as by default."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.number != 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()


class Clock:
    """Training time in s, evaluations left out, and steps per second, saving left out too."""

    def __init__(self, elapsed: float, step: int) -> None:
        self._origin = time.monotonic() - elapsed
        self.mark(step)

    def elapsed(self) -> float:
        """Training time so far."""
        return time.monotonic() - self._origin

    def mark(self, step: int) -> None:
        """The pace is measured from here."""
        self._marked, self._step = time.monotonic(), step

    def pace(self, step: int) -> float:
        """Steps per second since the mark, which moves here."""
        before, done = self._marked, step - self._step
        self.mark(step)
        return done / (self._marked - before)

    @contextmanager
    def paused(self, step: int) -> Iterator[None]:
        """What happens inside is no training time."""
        began = time.monotonic()
        yield
        self._origin += time.monotonic() - began
        self.mark(step)


class Metrics:
    """The lines of metrics.jsonl, and each number in them as a TensorBoard scalar.

    A line is a JSON object with "step". A resumed run drops the lines after its state's step:
    they are computed, and written, again.
    """

    def __init__(self, out: Path) -> None:
        self.out, self._file = out, out / METRICS
        self._board, self._first = None, 0
        self._mark = self._clocks()

    def rewind(self, step: int) -> None:
        """Forget what was written of later steps; at 0 that is everything."""
        kept = [line for line in self._lines() if line["step"] <= step] if step else []
        fresh = self._file.with_name(f".{METRICS}.tmp")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(fresh, self._file)
        self._first = step + 1

    def write(self, line: Mapping[str, float | str]) -> None:
        """Append one line, of what is finite: JSON has no NaN. Raises OSError on a full disk."""
        line = {n: v for n, v in line.items() if isinstance(v, str) or math.isfinite(v)}
        with self._file.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.out), purge_step=self._first)
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush the event file."""
        if self._board is not None:
            self._board.close()

    def _lines(self) -> list[dict]:
        """The lines so far; one cut off by a kill is dropped."""
        lines = []
        for text in self._file.read_text().splitlines() if self._file.exists() else ():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return lines

    def usage(self, device: str) -> dict[str, float]:
        """Use since the last call: CPU in percent of one core, and peak memory so far in MB.

        On CUDA also the GPU's use in percent, where NVML tells it, and its peak memory.
        """
        (wall, cpu), self._mark = self._mark, self._clocks()
        passed = max(self._mark[0] - wall, 1e-9)
        use = {
            "cpu_percent": round(100 * (self._mark[1] - cpu) / passed, 1),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        if device.startswith("cuda"):
            use["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) // 2**20
            from pynvml import NVMLError

            with suppress(NVMLError, RuntimeError):  # a slice of a GPU does not tell
                use["gpu_percent"] = torch.cuda.utilization(device)
        return use

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return time.monotonic(), time.process_time()
