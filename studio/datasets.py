"""What a folder of demonstrations holds: tasks, how many of each, and pictures to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models import lerobot, libero_hdf5
from models.data import demonstration_files
from studio.jpeg import encode_jpeg
from studio.remembered import Remembered, stamp

PICTURE = 224  # pixels, side of a picture


def contents(folder: Path) -> list[dict[str, Any]]:
    """`file`, `instruction`, `demos` and `steps` of every task below a folder.

    `file` is LIBERO's HDF5 file of the task or, of a LeRobot dataset, `meta/info.json`. One that
    cannot be read says why under `error`.
    """
    return [
        {"file": str(source.relative_to(folder)), **row}
        for source in demonstration_files(folder)
        for row in _rows(source)
    ]


def strip(folder: Path, file: str, instruction: str, demo: int) -> bytes:
    """First, middle and last agentview of a task's demonstration, side by side, as JPEG.

    Raises ValueError when there is no such file, task or demonstration.
    """
    found = demonstration_files(folder)
    source = next((s for s in found if str(s.relative_to(folder)) == file), None)
    if source is None:
        raise ValueError(f"{file}: there is no such file")
    try:
        if source.suffix == ".hdf5":
            shots = libero_hdf5.glimpse(source, demo)
        else:
            shots = lerobot.glimpse(source.parents[1], instruction, demo)
    except IndexError:
        raise ValueError(f"{file}: there is no demonstration {demo} of {instruction!r}") from None
    row = np.hstack([_picture(shot) for shot in shots])
    return encode_jpeg(row)


def _rows(source: Path) -> list[dict[str, Any]]:
    try:
        told = [source, *sorted((source.parent / "episodes").glob("*/*.parquet"))]
        return _TASKS.get(source, stamp(*told), lambda: _read(source))
    except ValueError as error:  # not remembered: it may be there in part as yet
        name = source.stem if source.suffix == ".hdf5" else source.parents[1].name
        return [{"instruction": name, "demos": 0, "steps": 0, "error": str(error)}]


_TASKS: Remembered[list[dict[str, Any]]] = Remembered()


def _read(source: Path) -> list[dict[str, Any]]:
    if source.suffix == ".hdf5":
        tasks = dict([libero_hdf5.outline(source)])
    else:
        tasks = lerobot.outline(source.parents[1])
    return [
        {"instruction": instruction, "demos": len(steps), "steps": sum(steps)}
        for instruction, steps in tasks.items()
    ]


def _picture(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (PICTURE, PICTURE), interpolation=cv2.INTER_CUBIC)
