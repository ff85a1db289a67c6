"""Demonstrations as training samples held in memory, from LIBERO's HDF5 or LeRobotDataset v3.

A sample starts at every `stride`-th step of a demonstration: what is seen there, and the next H
actions. Past the end a chunk repeats rest: zero motion, the last gripper command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import lerobot, libero_hdf5
from models.trajectory import Trajectory


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

    def mismatched(
        self, rows: np.ndarray, among: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Images of `rows`, the first view from another sample of the same task, out of `among`."""
        images, task = self.images[rows], self.task[among]
        others = [rng.choice(among[task == self.task[row]]) for row in rows]
        images[:, 0] = self.images[others, 0]
        return images

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
    """Read every demonstration under `folder` (see `read_demonstrations`) into memory.

    Raises ValueError as `read_demonstrations` does, and for images of several sizes.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    instructions: list[str] = []
    suites: set[str] = set()
    owners: list[int] = []
    for demo in read_demonstrations(folder, stride, action_dim):
        if demo.instruction not in instructions:
            instructions.append(demo.instruction)
        owners.append(instructions.index(demo.instruction))
        suites.add(demo.suite)
        starts = np.arange(0, len(demo.actions), stride)
        parts.append((demo.images, demo.proprio[starts], chunks(demo.actions, starts, horizon)))
    if len({images.shape[1:] for images, _, _ in parts}) > 1:
        raise ValueError(f"{folder}: the files hold images of several sizes; use one size")
    lengths = [len(images) for images, _, _ in parts]
    return Demonstrations(
        images=np.concatenate([images for images, _, _ in parts]),
        proprio=np.concatenate([proprio for _, proprio, _ in parts]),
        actions=np.concatenate([actions for _, _, actions in parts]),
        task=np.repeat(np.array(owners), lengths),
        demo=np.repeat(np.arange(len(parts)), lengths),
        instructions=tuple(instructions),
        suites=tuple(sorted(suites)),
    )


def read_demonstrations(
    folder: str | Path, stride: int = 1, action_dim: int = 7
) -> Iterator[Trajectory]:
    """Every demonstration under `folder`, one in memory at a time, seen every `stride` steps.

    LeRobotDataset v3 folders are told by their meta/info.json; beside them every `*.hdf5` is read.
    Raises ValueError (one line, naming the file) for an empty folder, a truncated file, missing
    keys, another action size, images that are not square uint8 RGB, or values that are not finite.
    """
    root = Path(folder)
    found = sorted([*root.rglob("*.hdf5"), *root.rglob(lerobot.INFO)]) if root.is_dir() else []
    # hidden folders hold what a collection or an export has not finished
    files = [f for f in found if not any(p.startswith(".") for p in f.relative_to(root).parts)]
    if not files:
        raise ValueError(
            f"{folder}: no demonstrations here (*.hdf5 or LeRobot's meta/info.json); "
            "collect or download some first"
        )
    for file in files:
        if file.suffix == ".hdf5":
            yield from libero_hdf5.read_file(file, stride, action_dim)
        else:
            yield from lerobot.read_folder(file.parents[1], stride, action_dim)


def chunks(actions: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Action chunks [len(starts), H, D] of actions [T, D], padded at the end with rest."""
    rest = np.zeros_like(actions[-1:])
    rest[:, -1] = actions[-1, -1]
    padded = np.concatenate([actions, np.repeat(rest, horizon, axis=0)])
    return padded[starts[:, None] + np.arange(horizon)]
