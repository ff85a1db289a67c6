"""Where the studio's jobs read and write: runs, data folders, checkpoints, and their paths.

A path from the page is looked up below the workspace and the folder `data` beside it, nowhere
else; what people record lies in the folder `recordings` beside it. Paths are shown, and put on
command lines, relative to the repository where they can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models import lerobot
from models.checkpoint import WEIGHTS
from studio.places import ASSETS, ROOT, SHIPPED

DEPTH = 3  # folders below a root in which demonstrations are looked for
STUDIES = ASSETS / "studies"  # evaluations of the shipped checkpoint


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder that holds demonstrations."""

    path: str  # as shown
    files: int  # HDF5 files in it and below; 0 for a LeRobot dataset


def shown(path: Path) -> str:
    """A path as people and command lines see it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


class Workspace:
    """The folders of one studio; `runs` is made when it is needed."""

    def __init__(self, runs: Path) -> None:
        self.runs = Path(os.path.abspath(runs))
        self.data = self.runs.parent / "data"
        self.recordings = self.runs.parent / "recordings"
        self.roots = (self.data, self.runs)

    def inside(self, text: str) -> Path:
        """A path from the page. Raises ValueError when it leads out of the roots.

        Symbolic links below a root were put there by its owner and are followed.
        """
        path = Path(os.path.normpath(ROOT / text))
        if "\0" in text or not any(path.is_relative_to(root) for root in self.roots):
            places = " or ".join(shown(root) for root in self.roots)
            raise ValueError(f"{text}: lies outside {places}")
        return path

    def data_folders(self) -> list[DataFolder]:
        """Folders with demonstrations, a root too when it joins several."""
        found = []
        for root in self.roots:
            below = list(_with_demonstrations(root, DEPTH))
            if root != self.runs and len(below) > 1:
                below.append((root, sum(count for _, count in below)))
            found += [DataFolder(shown(path), count) for path, count in below]
        return found

    def checkpoints(self) -> list[str]:
        """Checkpoint folders, as shown: those shipped, and best and last of every run."""
        folders = [*SHIPPED.glob("*"), *self.runs.glob("*/best"), *self.runs.glob("*/last")]
        return [shown(folder) for folder in sorted(folders) if (folder / WEIGHTS).is_file()]

    def checkpoint(self, text: str) -> Path:
        """A checkpoint folder from the page. Raises ValueError when it is none of these."""
        if text not in self.checkpoints():
            raise ValueError(f"{text}: there is no such checkpoint")
        return ROOT / text


def _with_demonstrations(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """(folder, HDF5 files) of this folder and those below; hidden ones are passed over."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    count = sum(e.name.endswith(".hdf5") and not e.name.startswith(".") for e in entries)
    if count or (folder / lerobot.INFO).is_file():
        yield folder, count
        return
    for entry in entries if depth else ():
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _with_demonstrations(folder / entry.name, depth - 1)
