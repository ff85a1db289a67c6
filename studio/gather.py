"""Recordings as training data: LIBERO's HDF5 files, one per scene and instruction.

Only the steps that count are taken (`studio.library`). Where other words were said on the way, the
episode becomes several demonstrations, each of what was asked at the time. Who drove stays beside
the actions; what that weighs in training is `models.data`'s to say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from models.whole import whole_folder
from studio import demos, recording
from studio.collect import HELD_OUT
from studio.events import SceneSpec
from studio.library import Library
from studio.replay import DEMO, header, pixels_of

EXTRAS = ("driver", "camera_pose")
NAME_LENGTH = 80  # characters of a file's name


@dataclass(frozen=True, slots=True)
class Segment:
    """The steps `first` <= t < `last` of a recording, in which `instruction` was asked."""

    folder: Path
    scene: SceneSpec
    instruction: str
    first: int
    last: int
    success: bool  # at its end
    pixels: str  # the renderer that drew it

    @contextmanager
    def opened(self) -> Iterator[demos.Demonstration]:
        """These steps of the replayed recording; its pictures are read as they are sliced.

        Raises OSError without one, ValueError when it is damaged.
        """
        span = slice(self.first, self.last)
        with h5py.File(self.folder / DEMO, "r") as file:
            try:
                found = self._read(file["data/demo_0"], span)
            except KeyError as error:
                text = f"{self.folder.name}: its replay is damaged ({error.args[0]}); make it again"
                raise ValueError(text) from None
            yield found

    def _read(self, demo: h5py.Group, span: slice) -> demos.Demonstration:
        obs = demo["obs"]
        proprio = [obs[key][span] for key in ("ee_pos", "ee_ori", "gripper_states")]
        own = {"num_samples", "model_file", "init_state"}
        about = {name: v for name, v in demo.attrs.items() if name not in own}
        return demos.Demonstration(
            images={c: _Upright(obs[key], span) for c, key in demos.IMAGE_KEYS.items()},
            proprio=np.concatenate(proprio, axis=1).astype(np.float32),
            joints=obs["joint_states"][span],
            states=demo["states"][span],
            actions=demo["actions"][span],
            executed_actions=demo["executed_actions"][span],
            model_xml=demo.attrs["model_file"],
            attributes=about | {"recording": self.folder.name, "first_step": self.first},
            extras={name: demo[name][span] for name in EXTRAS},
            success=self.success,
        )


class _Upright:
    """Rows of LIBERO's pictures, the right way up, as `demos.Pictures`."""

    def __init__(self, stored: h5py.Dataset, rows: slice) -> None:
        self._stored, self._rows = stored, range(*rows.indices(len(stored)))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, span: slice) -> np.ndarray:
        rows = self._rows[span]
        return self._stored[rows.start : rows.stop][:, ::-1]


def segments(folder: Path, first: int, last: int) -> Iterator[Segment]:
    """The recording's steps `first` <= t < `last`, parted where other words were said."""
    tape = recording.read(folder)
    words = [tape.view(step).instruction for step in range(first, last)]
    for instruction, steps in groupby(range(len(words)), words.__getitem__):
        span = list(steps)
        begins, ends = first + span[0], first + span[-1] + 1
        success = bool(tape.success[ends - 1])
        yield Segment(folder, tape.scene, instruction, begins, ends, success, pixels_of(tape))


def _demonstrations(parts: Iterable[Segment]) -> Iterator[demos.Demonstration]:
    """Each opened while it is looked at."""
    for part in parts:
        with part.opened() as demonstration:
            yield demonstration


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
            scene = segment.scene
            task = (scene.suite, scene.task, scene.layout, segment.instruction, segment.pixels)
            tasks[task].append(segment)
    if not tasks:
        raise ValueError("choose some recordings first")
    with whole_folder(out) as fresh:
        for number, parts in enumerate(tasks.values()):
            first = parts[0]
            file = demos.demo_path(fresh, _file_name(first.instruction))
            if file.exists():  # of another scene
                file = demos.demo_path(fresh, f"{_file_name(first.instruction)}_{number}")
            about = header(first.scene, first.instruction, first.pixels)
            demos.write_file(file, about, _demonstrations(parts))
    return sum(map(len, tasks.values()))


def held_out(library: Library, names: Collection[str]) -> int:
    """How many of these recordings begin as evaluations do: trained on, they are no test."""
    chosen = [row for row in library.all() if row["id"] in names]
    return sum(row["scene"]["init"] in HELD_OUT for row in chosen)


def _file_name(instruction: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", instruction.lower()).strip("_")[:NAME_LENGTH] or "task"
