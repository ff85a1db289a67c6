"""Demonstrations on disk in LIBERO's own HDF5 format, one `<task>_demo.hdf5` per task.

`write_part` saves one episode as a file of its own, `assemble` joins a task's parts into LIBERO's
file, `write_file` and `one_file` write that at once; all write to a temporary name and rename, so
that only whole files are ever seen. Pictures come and go a block at a time: half an hour of them
would take gigabytes of memory.
LIBERO stores images upside down and says so (`macros_image_convention` = "opengl"); so do we.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from studio.hdf5 import Draft, whole_hdf5

IMAGE_CONVENTION = "opengl"  # rows bottom to top
IMAGE_KEYS = {"agentview": "agentview_rgb", "wrist": "eye_in_hand_rgb"}
COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": False}
COLLECTED = "fast"  # renderer of what `studio.collect` writes
PART = "demo"  # group of an episode that has a file of its own
BLOCK = 64  # steps whose pictures are in memory at once


class Pictures(Protocol):
    """uint8 RGB [T, S, S, 3], upright: an array, or what reads one in slices."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode of T steps; row t is what was so before `actions[t]`.

    `images` per camera; None when a `DemoWriter` has got them.
    """

    images: Mapping[str, Pictures] | None
    proprio: np.ndarray  # float32 [T, 8], as Observation.proprio
    joints: np.ndarray  # float64 [T, 7], rad
    states: np.ndarray  # float64 [T, state], flattened MuJoCo states
    actions: np.ndarray  # float64 [T, 7], the clean labels
    executed_actions: np.ndarray  # float64 [T, 7], what the robot did (labels plus noise)
    model_xml: str
    attributes: Mapping[str, object] = field(default_factory=dict)  # seed, init, ...
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)  # datasets LIBERO doesn't have
    success: bool = True  # at the end

    def __post_init__(self) -> None:
        arrays = [self.proprio, self.joints, self.states, self.executed_actions]
        arrays += [*(self.images or {}).values(), *self.extras.values()]
        lengths = {len(a) for a in arrays} | {len(self.actions)}
        if lengths == {0} or len(lengths) != 1:
            raise ValueError(f"demonstration: arrays must be equally long, not {sorted(lengths)}")
        if self.images is not None and set(self.images) != set(IMAGE_KEYS):
            raise ValueError(f"demonstration: cameras must be {sorted(IMAGE_KEYS)}")


def task_header(bddl_file: Path, instruction: str, pixels: str) -> dict[str, str]:
    """The attributes of the group `data` that describe a task, as LIBERO's own scripts write them.

    pixels: the renderer of the pictures, "fast" or "faithful". Raises ValueError when the file is
    no BDDL problem.
    """
    content = bddl_file.read_text()
    names = {key: re.search(rf"\({key}\s+(\S+?)\)", content) for key in ("problem", ":domain")}
    if not all(names.values()):
        raise ValueError(
            f"{bddl_file}: not a BDDL problem; it needs (problem ...) and (:domain ...)"
        )
    problem, domain = (match.group(1) for match in names.values())
    problem_info = {
        "problem_name": problem.lower(),
        "domain_name": domain.lower(),
        "language_instruction": instruction,
    }
    name = f"{bddl_file.parent.name}/{bddl_file.name}"  # the folder: its suite
    env_args = {
        "type": 1,
        "env_name": problem.title(),  # as the class is called that robosuite registers
        "problem_name": problem.lower(),
        "bddl_file": name,
        "env_kwargs": {
            "robots": ["Panda"],
            "controller_configs": _controller(),
            "bddl_file_name": str(bddl_file.resolve()),
            "control_freq": 20,
            "ignore_done": True,
            "reward_shaping": True,
            "has_renderer": False,
            "has_offscreen_renderer": True,
            "use_camera_obs": True,
            "camera_names": ["robot0_eye_in_hand", "agentview"],
            "camera_heights": 128,
            "camera_widths": 128,
            "camera_depths": False,
            "camera_segmentations": None,
        },
    }
    return {
        "env_name": problem.title(),
        "problem_info": json.dumps(problem_info),
        "bddl_file_name": name,
        "bddl_file_content": content,
        "env_args": json.dumps(env_args),
        "macros_image_convention": IMAGE_CONVENTION,
        "tag": "libero-v1",  # LIBERO's check_dataset_integrity.py wants one
        "pixels": pixels,
    }


def _controller() -> dict[str, object]:
    """robosuite's OSC_POSE, read without importing robosuite."""
    package = Path(importlib.util.find_spec("robosuite").origin).parent
    return json.loads((package / "controllers/config/osc_pose.json").read_text())


def demo_path(folder: Path, task_name: str) -> Path:
    """Where a task's demonstrations belong: `<folder>/<task>_demo.hdf5`."""
    return folder / f"{task_name}_demo.hdf5"


def write_part(path: Path, demo: Demonstration) -> None:
    """Save one episode as the group `PART` of its own file."""
    with whole_hdf5(path) as file:
        DemoWriter(file, PART).finish(demo)


def assemble(path: Path, header: Mapping[str, str], episodes: Sequence[tuple[Path, str]]) -> None:
    """Join episodes into LIBERO's file, `data/demo_0` ... in the order of `episodes`.

    header: see `task_header`; episodes: file and group, `path` as it was among them.

    Raises ValueError without episodes, OSError when one cannot be read.
    """
    if not episodes:
        raise ValueError(f"{path.name}: no episodes to write; collect some first")
    with _task_file(path, header) as file:
        for i, (part, group) in enumerate(episodes):
            file.check()
            with h5py.File(part, "r") as source:
                source.copy(group, file["data"], name=f"demo_{i}")


def write_file(
    path: Path, header: Mapping[str, str], demonstrations: Iterable[Demonstration]
) -> None:
    """LIBERO's file of some episodes, as `assemble` makes it. Raises OSError on a full disk."""
    with _task_file(path, header) as file:
        for number, demo in enumerate(demonstrations):
            DemoWriter(file, f"data/demo_{number}").finish(demo)


@contextmanager
def one_file(path: Path, header: Mapping[str, str]) -> Iterator[DemoWriter]:
    """LIBERO's file of one episode, in the making. Raises OSError on a full disk."""
    with _task_file(path, header) as file:
        yield DemoWriter(file, "data/demo_0")


@contextmanager
def _task_file(path: Path, header: Mapping[str, str]) -> Iterator[Draft]:
    """A task's file in the making; what it holds is counted at its end."""
    with whole_hdf5(path) as file:
        data = file.create_group("data")
        yield file
        steps = [int(demo.attrs["num_samples"]) for demo in data.values()]
        data.attrs.update(dict(header) | {"num_demos": len(steps), "total": sum(steps)})


class DemoWriter:
    """An episode in the making. Pictures may come first, and go to disk block by block."""

    def __init__(self, file: Draft, name: str) -> None:
        """A new group `name` of `file`."""
        self._group, self._check = file.create_group(name), file.check
        self._latest: list[Mapping[str, np.ndarray]] = []

    def append(self, images: Mapping[str, np.ndarray]) -> None:
        """The pictures of one more step: uint8 RGB [S, S, 3] per camera, upright.

        Raises OSError when the disk is full.
        """
        self._latest.append(images)
        if len(self._latest) == BLOCK:
            self._flush()

    def finish(self, demo: Demonstration) -> None:
        """Everything else. Raises ValueError for another number of pictures, OSError as above."""
        steps = len(demo.actions)
        self._flush()
        if demo.images is not None:
            for first in range(0, steps, BLOCK):
                span = slice(first, first + BLOCK)
                self._extend({name: pictures[span] for name, pictures in demo.images.items()})
        if any(len(self._group[f"obs/{key}"]) != steps for key in IMAGE_KEYS.values()):
            raise ValueError(f"demonstration: {steps} steps, but not as many pictures")
        for key, values in _arrays(demo).items():
            self._group.create_dataset(key, data=values)
        self._group.attrs["num_samples"] = steps
        self._group.attrs["model_file"] = demo.model_xml
        self._group.attrs["init_state"] = demo.states[0]
        self._group.attrs.update(demo.attributes)

    def _flush(self) -> None:
        latest, self._latest = self._latest, []
        if latest:
            self._extend({c: np.stack([images[c] for images in latest]) for c in IMAGE_KEYS})

    def _extend(self, images: Mapping[str, np.ndarray]) -> None:
        """A block of steps, [n, S, S, 3] per camera."""
        self._check()
        for camera, key in IMAGE_KEYS.items():
            rows_flipped = images[camera][:, ::-1]
            stored = self._group.get(f"obs/{key}")
            if stored is None:
                stored = self._create(f"obs/{key}", rows_flipped.shape[1:])
            stored.resize(len(stored) + len(rows_flipped), axis=0)
            stored[len(stored) - len(rows_flipped) :] = rows_flipped

    def _create(self, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
        sizes = {"shape": (0, *shape), "maxshape": (None, *shape), "chunks": (1, *shape)}
        return self._group.create_dataset(name, dtype=np.uint8, **sizes, **COMPRESSION)


def count_demos(path: Path) -> int:
    """Number of demonstrations in a task's file; 0 when there is no such file.

    Raises ValueError when it is another file than LIBERO's.
    """
    if not path.is_file():
        return 0
    try:
        with h5py.File(path, "r") as file:
            return int(file["data"].attrs["num_demos"])
    except (KeyError, AttributeError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a LIBERO demonstration file ({error})") from None


def _arrays(demo: Demonstration) -> dict[str, np.ndarray]:
    """The datasets of an episode but its pictures."""
    last = np.zeros(len(demo.actions), np.uint8)
    last[-1] = 1
    position, orientation, gripper = np.split(demo.proprio.astype(np.float64), [3, 6], axis=1)
    robot = np.concatenate([gripper, position, _quaternions(orientation)], axis=1)
    return {
        "actions": demo.actions,
        "executed_actions": demo.executed_actions,
        "states": demo.states,
        "robot_states": robot,
        "rewards": last * demo.success,
        "dones": last,
        "obs/ee_states": np.concatenate([position, orientation], axis=1),
        "obs/ee_pos": position,
        "obs/ee_ori": orientation,
        "obs/gripper_states": gripper,
        "obs/joint_states": demo.joints,
        **demo.extras,
    }


def _quaternions(axis_angles: np.ndarray) -> np.ndarray:
    """Quaternions [T, 4] (x, y, z, w) of axis-angle vectors [T, 3]."""
    angles = np.linalg.norm(axis_angles, axis=1, keepdims=True)
    half_sinc = 0.5 * np.sinc(angles / (2 * np.pi))  # sin(a/2) / a
    return np.concatenate([axis_angles * half_sinc, np.cos(angles / 2)], axis=1)
