"""LIBERO's HDF5 demonstrations, one file per task: the official ones and `studio.collect`'s.

Images are turned upright when the file says that they are stored upside down
(`macros_image_convention` = "opengl", as LIBERO's own files do). `obs` row t goes with `actions`
row t, as LIBERO's and robomimic's loaders pair them. Files of the studio say which renderer drew
them (`pixels`); recordings have a dataset more, `driver`. Groups beside `data` (robomimic's `mask`)
are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from models.config import PIXELS
from models.trajectory import Trajectory, check_actions, check_images

PROPRIO_PARTS = (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2))
OURS = {"driver", "executed_actions"}  # our files have one; rewards of others may say nothing
IMAGE_KEYS = ("agentview_rgb", "eye_in_hand_rgb")  # order of `CAMERAS`


def read_file(file: Path, stride: int = 1, action_dim: int = 7) -> Iterator[Trajectory]:
    """The demonstrations of a task, in order of their numbers, one in memory at a time.

    Their pictures are read as they are sliced, while the next one has not been asked for.
    Raises ValueError (one line, naming the file) for a truncated file, missing keys, another
    action size, images that are not square uint8 RGB, or values that are not finite.
    """
    with _opened(file) as (data, names):
        task = _instruction(data), _suite(data, file)
        flip, pixels = _upside_down(data), _text(data.attrs.get("pixels", PIXELS[0]))
        for name in names:
            yield _read_demo(data[name], task, pixels, flip, stride, action_dim)


def outline(file: Path) -> tuple[str, list[int]]:
    """Instruction of a task's file and the steps of its demonstrations. Raises as `read_file`."""
    with _opened(file) as (data, names):
        return _instruction(data), [_steps(data[name]) for name in names]


def glimpse(file: Path, demo: int) -> np.ndarray:
    """First, middle and last agentview, uint8 [3, S, S, 3], upright, of demonstration `demo`.

    Raises IndexError for a demonstration that is not there, otherwise as `read_file`.
    """
    with _opened(file) as (data, names):
        images = data[names[demo]]["obs"][IMAGE_KEYS[0]]
        shots = np.stack([images[i] for i in (0, len(images) // 2, len(images) - 1)])
        return shots[:, ::-1] if _upside_down(data) else shots


@contextmanager
def _opened(file: Path) -> Iterator[tuple[h5py.Group, list[str]]]:
    """The group `data` and its demonstrations' names in order; failures told in one line."""
    try:
        with h5py.File(file, "r") as h5:
            names = sorted(filter(_is_demo, h5["data"]), key=_number)
            if not names:
                raise ValueError("holds no demonstrations")
            yield h5["data"], names
    except (KeyError, AttributeError, TypeError) as error:  # missing, or of another kind
        raise ValueError(f"{file}: not a LIBERO demonstration file, {error.args[0]}") from None
    except (OSError, RuntimeError) as error:  # how h5py tells of damage
        raise ValueError(f"{file}: unreadable or truncated HDF5 ({error})") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _steps(demo: h5py.Group) -> int:
    if not isinstance(demo, h5py.Group):
        raise ValueError(f"{demo.name}: not a group")
    return len(demo["actions"])


def _is_demo(name: str) -> bool:
    return name.startswith("demo_") and name.removeprefix("demo_").isdecimal()


def _number(name: str) -> int:
    return int(name.removeprefix("demo_"))


def _read_demo(
    demo: h5py.Group,
    task: tuple[str, str],
    pixels: str,
    flip: bool,
    stride: int,
    action_dim: int,
) -> Trajectory:
    try:
        actions = check_actions(demo["actions"], action_dim)
        obs = demo["obs"]
        proprio = [_proprio(obs[key], len(actions), size) for key, size in PROPRIO_PARTS]
        return Trajectory(
            *task,
            images=_Pictures([obs[key] for key in IMAGE_KEYS], len(actions), stride, flip),
            proprio=np.concatenate(proprio, axis=1),
            actions=actions,
            driver=np.asarray(demo["driver"], np.uint8) if "driver" in demo else None,
            finished=not (OURS & set(demo) and "rewards" in demo and demo["rewards"][-1] == 0),
            pixels=pixels,
        )
    except ValueError as error:
        raise ValueError(f"{demo.name}: {error}") from None


def _proprio(part: h5py.Dataset, length: int, size: int) -> np.ndarray:
    values = np.asarray(part, dtype=np.float32)
    if values.shape != (length, size):
        raise ValueError(f"{part.name}: shape {values.shape}, expected {(length, size)}")
    return values


class _Pictures:
    """Those of one demonstration, every `stride`-th step: as an array [n, 2, S, S, 3] in slices.

    Raises ValueError (one line) for other pictures and, when they are read, a damaged file.
    """

    def __init__(self, parts: Sequence[h5py.Dataset], length: int, stride: int, flip: bool) -> None:
        for part in parts:
            if part.ndim != 4 or part.shape[0] != length or part.dtype != np.uint8:
                raise ValueError(f"{part.name}: expected uint8 ({length}, S, S, 3)")
            check_images(part)
        if parts[0].shape != parts[1].shape:
            raise ValueError(f"{parts[1].name}: another size than {parts[0].name}")
        self._parts, self._rows, self._flip = parts, range(0, length, stride), flip
        self.shape = (len(self._rows), len(parts), *parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, span: slice) -> np.ndarray:
        rows = self._rows[span]
        try:
            images = np.stack([self._read(part, rows) for part in self._parts], axis=1)
        except OSError as error:
            file = self._parts[0].file.filename
            raise ValueError(f"{file}: unreadable or truncated HDF5 ({error})") from None
        return images[:, :, ::-1] if self._flip else images

    def _read(self, part: h5py.Dataset, rows: range) -> np.ndarray:
        # row by row: a strided selection of chunks costs HDF5 twelve times as much
        return np.stack([part[row] for row in rows])


def _upside_down(data: h5py.Group) -> bool:
    return _text(data.attrs.get("macros_image_convention", "opengl")) == "opengl"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _instruction(data: h5py.Group) -> str:
    try:
        text = json.loads(_text(data.attrs["problem_info"]))["language_instruction"]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"data.problem_info is no JSON ({error})") from None
    return "".join(text).strip().strip('"')


def _suite(data: h5py.Group, file: Path) -> str:
    """The folder of the task's BDDL file names its suite, or else the folder of the file itself."""
    named = Path(_text(data.attrs.get("bddl_file_name", ""))).parent.name
    own = file.resolve().parent.name
    return named or (own if own.startswith("libero_") else "unknown")
