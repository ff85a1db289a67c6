"""LIBERO demonstrations (HDF5, one file per task) as training samples held in memory.

A sample starts at every `stride`-th step of a demonstration: what is seen there, and the next H
actions. Past the end a chunk repeats rest: zero motion, the last gripper command. Images stay
uint8 and are turned upright when the file says that they are stored upside down
(`macros_image_convention` = "opengl", as LIBERO's own files do).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

PROPRIO_PARTS = (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2))
IMAGE_KEYS = ("agentview_rgb", "eye_in_hand_rgb")  # order of `CAMERAS`


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """n samples of all files. Shape letters as in `types.py`."""

    images: np.ndarray  # uint8 [n, 2, S, S, 3], upright
    proprio: np.ndarray  # float32 [n, 8]
    actions: np.ndarray  # float32 [n, H, D], environment scale
    task: np.ndarray  # int64 [n], index into `instructions`
    demo: np.ndarray  # int64 [n], running number of the demonstration
    instructions: tuple[str, ...]
    suites: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.task)

    def split(self, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """(training, held-out) sample indices; of each task the last demonstrations are held out.

        At least one demonstration per task is held out if `fraction` > 0 and it has several.
        """
        held = np.zeros(len(self), dtype=bool)
        for task in range(len(self.instructions)):
            demos = np.unique(self.demo[self.task == task])
            count = min(len(demos) - 1, max(1, round(fraction * len(demos)))) if fraction else 0
            held |= np.isin(self.demo, demos[len(demos) - count :])
        return np.flatnonzero(~held), np.flatnonzero(held)


def load_demonstrations(
    folder: str | Path, horizon: int, stride: int = 1, action_dim: int = 7
) -> Demonstrations:
    """Read every `*.hdf5` under `folder`.

    Raises ValueError (one line, naming the file) for an empty folder, a truncated file, missing
    keys, another action size, images that are not square uint8 RGB, or values that are not finite.
    """
    root = Path(folder)
    found = sorted(root.rglob("*.hdf5")) if root.is_dir() else []
    # hidden folders hold the episodes of a collection that has not finished
    files = [f for f in found if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    if not files:
        raise ValueError(f"{folder}: no *.hdf5 demonstrations here; collect or download some first")
    samples: list[tuple[np.ndarray, ...]] = []
    instructions: list[str] = []
    suites: set[str] = set()
    owners: list[int] = []
    for file in files:
        instruction, suite, demos = _read_file(file, horizon, stride, action_dim)
        if instruction not in instructions:
            instructions.append(instruction)
        suites.add(suite)
        samples += demos
        owners += [instructions.index(instruction)] * len(demos)
    if len({s[0].shape[1:] for s in samples}) > 1:
        raise ValueError(f"{folder}: the files hold images of several sizes; use one size")
    lengths = [len(s[1]) for s in samples]
    return Demonstrations(
        images=np.concatenate([s[0] for s in samples]),
        proprio=np.concatenate([s[1] for s in samples]),
        actions=np.concatenate([s[2] for s in samples]),
        task=np.repeat(np.array(owners), lengths),
        demo=np.repeat(np.arange(len(samples)), lengths),
        instructions=tuple(instructions),
        suites=tuple(sorted(suites)),
    )


def _read_file(
    file: Path, horizon: int, stride: int, action_dim: int
) -> tuple[str, str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    try:
        with h5py.File(file, "r") as h5:
            data = h5["data"]
            flip = _text(data.attrs.get("macros_image_convention", "opengl")) == "opengl"
            demos = [
                _read_demo(data[name], flip, horizon, stride, action_dim) for name in _names(data)
            ]
            instruction, suite = _instruction(data), _suite(data)
    except KeyError as error:
        raise ValueError(f"{file}: not a LIBERO demonstration file, {error.args[0]}") from None
    except OSError as error:
        raise ValueError(f"{file}: unreadable or truncated HDF5 ({error})") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not demos:
        raise ValueError(f"{file}: holds no demonstrations")
    return instruction, suite, demos


def _names(data: h5py.Group) -> Iterator[str]:
    """demo_0, demo_1, ... in numeric order."""
    return iter(sorted(data.keys(), key=lambda name: int(name.rpartition("_")[2])))


def _read_demo(
    demo: h5py.Group, flip: bool, horizon: int, stride: int, action_dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, proprio and action chunks of one demonstration's samples."""
    actions = np.asarray(demo["actions"], dtype=np.float32)
    if actions.ndim != 2 or actions.shape[1] != action_dim or not len(actions):
        raise ValueError(
            f"{demo.name}: actions have shape {actions.shape}, expected (T, {action_dim})"
        )
    obs = demo["obs"]
    proprio = np.concatenate(
        [_proprio(obs[key], len(actions), size) for key, size in PROPRIO_PARTS], axis=1
    )
    for name, values in (("actions", actions), ("proprio", proprio)):
        if not np.isfinite(values).all():
            raise ValueError(f"{demo.name}: {name} hold values that are not finite")
    images = np.stack([_images(obs[key], len(actions), stride) for key in IMAGE_KEYS], axis=1)
    starts = np.arange(0, len(actions), stride)
    return images[:, :, ::-1] if flip else images, proprio[starts], chunks(actions, starts, horizon)


def chunks(actions: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Action chunks [len(starts), H, D] of actions [T, D], padded at the end with rest."""
    rest = np.zeros_like(actions[-1:])
    rest[:, -1] = actions[-1, -1]
    padded = np.concatenate([actions, np.repeat(rest, horizon, axis=0)])
    return padded[starts[:, None] + np.arange(horizon)]


def _proprio(part: h5py.Dataset, length: int, size: int) -> np.ndarray:
    values = np.asarray(part, dtype=np.float32)
    if values.shape != (length, size):
        raise ValueError(f"{part.name}: shape {values.shape}, expected {(length, size)}")
    return values


def _images(part: h5py.Dataset, length: int, stride: int) -> np.ndarray:
    if part.ndim != 4 or part.shape[0] != length or part.shape[3] != 3 or part.dtype != np.uint8:
        raise ValueError(f"{part.name}: expected uint8 ({length}, S, S, 3), found {part.shape}")
    if part.shape[1] != part.shape[2]:
        raise ValueError(f"{part.name}: images must be square, found {part.shape[1:3]}")
    return part[::stride]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _instruction(data: h5py.Group) -> str:
    try:
        text = json.loads(_text(data.attrs["problem_info"]))["language_instruction"]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"data.problem_info is no JSON ({error})") from None
    return "".join(text).strip().strip('"')


def _suite(data: h5py.Group) -> str:
    """The folder of the task's BDDL file names its suite."""
    return Path(_text(data.attrs.get("bddl_file_name", "unknown/x"))).parent.name or "unknown"
