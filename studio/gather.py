"""Recordings as training data: LIBERO's HDF5 files, one per scene and instruction.

Only the steps that count are taken (`studio.library`). Where other words were said on the way, the
episode becomes several demonstrations, each of what was asked at the time. Who drove stays beside
the actions; what that weighs in training is `models.data`'s to say.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from studio import demos, recording
from studio.library import Library
from studio.recording import Recording
from studio.replay import DEMO, header

EXTRAS = ("driver", "camera_pose")
NAME_LENGTH = 80  # characters of a file's name


@dataclass(frozen=True, slots=True)
class Segment:
    """The steps `first` <= t < `last` of a recording, in which `instruction` was asked."""

    folder: Path
    tape: Recording
    instruction: str
    first: int
    last: int

    def read(self) -> demos.Demonstration:
        """These steps of the replayed recording. Raises OSError without one."""
        span = slice(self.first, self.last)
        with h5py.File(self.folder / DEMO, "r") as file:
            demo = file["data/demo_0"]
            obs = demo["obs"]
            images = {c: obs[key][span][:, ::-1] for c, key in demos.IMAGE_KEYS.items()}
            proprio = [obs[key][span] for key in ("ee_pos", "ee_ori", "gripper_states")]
            own = {"num_samples", "model_file", "init_state"}
            about = {name: v for name, v in demo.attrs.items() if name not in own}
            ended = self.last == len(self.tape)
            return demos.Demonstration(
                images=images,
                proprio=np.concatenate(proprio, axis=1).astype(np.float32),
                joints=obs["joint_states"][span],
                states=demo["states"][span],
                actions=demo["actions"][span],
                executed_actions=demo["executed_actions"][span],
                model_xml=demo.attrs["model_file"],
                attributes=about | {"recording": self.folder.name, "first_step": self.first},
                extras={name: demo[name][span] for name in EXTRAS},
                success=bool(ended and self.tape.success[-1]),
            )


def segments(folder: Path, first: int, last: int) -> Iterator[Segment]:
    """The recording's steps `first` <= t < `last`, parted where other words were said."""
    tape = recording.read(folder)
    words = [tape.view(step).instruction for step in range(first, last)]
    for instruction, steps in groupby(range(len(words)), words.__getitem__):
        span = list(steps)
        yield Segment(folder, tape, instruction, first + span[0], first + span[-1] + 1)


def gather(library: Library, names: Iterable[str], out: Path) -> int:
    """Write the recordings `names` as the new folder `out`; returns how many demonstrations.

    Raises ValueError when `out` exists or a recording is not replayed yet, OSError on a full disk;
    `out` then does not appear.
    """
    tasks: dict[tuple, list[Segment]] = defaultdict(list)
    for name in names:
        folder = library.folder(name)
        if not (folder / DEMO).is_file():
            raise ValueError(f"{name}: replay it first; training needs its pictures")
        for segment in segments(folder, *library.span(name)):
            scene = segment.tape.scene
            tasks[scene.suite, scene.task, scene.layout, segment.instruction].append(segment)
    if not tasks:
        raise ValueError("choose some recordings first")
    with _new_folder(out) as fresh:
        for number, parts in enumerate(tasks.values()):
            first = parts[0]
            file = demos.demo_path(fresh, _file_name(first.instruction))
            if file.exists():  # of another scene
                file = demos.demo_path(fresh, f"{_file_name(first.instruction)}_{number}")
            demos.write_file(file, header(first.tape, first.instruction), (p.read() for p in parts))
    return sum(map(len, tasks.values()))


def _file_name(instruction: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", instruction.lower()).strip("_")[:NAME_LENGTH] or "task"


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under `path` only once it is complete."""
    if path.exists():
        raise ValueError(f"{path.name}: this folder exists already; choose another name")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
