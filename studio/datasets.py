"""What a folder of demonstrations holds: files, instructions, counts, and pictures to look at."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from models import libero_hdf5

PICTURE = 224  # pixels, side of a picture


def contents(folder: Path) -> list[dict[str, Any]]:
    """`file`, `instruction`, `demos` and `steps` of every HDF5 file below a folder.

    A file that cannot be read says why under `error`. Hidden folders are passed over: they hold
    the episodes of a collection that has not finished.
    """
    rows = []
    for file in sorted(folder.rglob("*.hdf5")):
        name = file.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            stat = file.stat()
            rows.append({"file": str(name), **_describe(file, stat.st_size, stat.st_mtime_ns)})
    return rows


@lru_cache(maxsize=1024)
def _describe(file: Path, size: int, changed: int) -> dict[str, Any]:
    try:
        instruction, steps = libero_hdf5.outline(file)
    except ValueError as error:
        return {"instruction": file.stem, "demos": 0, "steps": 0, "error": str(error)}
    return {"instruction": instruction, "demos": len(steps), "steps": sum(steps)}


def strip(folder: Path, file: str, demo: int) -> bytes:
    """First, middle and last agentview of a demonstration, upright, side by side, as JPEG.

    Raises ValueError when there is no such file or demonstration.
    """
    if file not in [row["file"] for row in contents(folder)]:
        raise ValueError(f"{file}: there is no such file")
    try:
        with h5py.File(folder / file, "r") as h5:
            data = h5["data"]
            images = data[f"demo_{demo}/obs/agentview_rgb"]
            shots = [images[i] for i in (0, len(images) // 2, len(images) - 1)]
            upside_down = data.attrs.get("macros_image_convention", "opengl") == "opengl"
    except (KeyError, OSError, ValueError, IndexError) as error:
        raise ValueError(f"{file}: demonstration {demo} can't be shown ({error})") from None
    row = np.hstack([_picture(shot[::-1] if upside_down else shot) for shot in shots])
    return cv2.imencode(".jpg", row[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _picture(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (PICTURE, PICTURE), interpolation=cv2.INTER_CUBIC)
