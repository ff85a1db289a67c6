"""Demonstrations as training samples held in memory, from LIBERO's HDF5 or LeRobotDataset v3.

A sample starts at every `stride`-th step of a demonstration: what is seen there, and the next H
actions. Past the end a chunk repeats rest: zero motion, the last gripper command; a recording that
was cut off in mid-motion has no such chunks.

Recordings of a session say who drove each step. As in HG-DAgger (Kelly et al. 2019) what a person
did is what there is to learn, not what the policy did before it was corrected: a chunk is a
person's if they drove, alone or together with the policy, all of its steps, and the policy's
otherwise. `Demonstrations.drawn` is the one place where this becomes weights.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from models import lerobot, libero_hdf5
from models.schedule import TrainConfig
from models.trajectory import DRIVERS, PIXELS, Trajectory

DEMONSTRATED, HUMAN, POLICY = range(3)  # whose a sample's chunk is


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """n samples of all files. Shape letters as in `types.py`."""

    images: np.ndarray  # uint8 [n, 2, S, S, 3], upright
    proprio: np.ndarray  # float32 [n, 8]
    actions: np.ndarray  # float32 [n, H, D], environment scale
    task: np.ndarray  # int64 [n], index into `instructions`
    demo: np.ndarray  # int64 [n], running number of the demonstration
    step: np.ndarray  # int64 [n], of the demonstration
    start: np.ndarray  # int64 [demonstrations], equal for those that begin with the same picture
    source: np.ndarray  # uint8 [n], DEMONSTRATED, HUMAN or POLICY
    instructions: tuple[str, ...]
    suites: tuple[str, ...]
    pixels: tuple[str, ...] = PIXELS[:1]  # the renderers of the images

    def __len__(self) -> int:
        return len(self.task)

    def renderer(self) -> str:
        """The one that drew the images. Raises ValueError when these are several."""
        if len(self.pixels) > 1:
            raise ValueError(
                "training: these demonstrations were drawn by two renderers; keep them apart, or "
                "say with --pixels which one the policy will see"
            )
        return self.pixels[0]

    def digest(self) -> str:
        """Tells these samples, in this order, from others."""
        found = hashlib.blake2b("\n".join(self.instructions).encode(), digest_size=16)
        for part in (self.task, self.demo, self.source, self.proprio, self.actions):
            found.update(np.ascontiguousarray(part))
        return found.hexdigest()

    def other_moments(
        self, rows: np.ndarray, among: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """For each of `rows` another sample of its task, of `among`; itself if there is none."""
        task = self.task[among]

        def another(row: int) -> int:
            same = among[task == self.task[row]]
            others = same[same != row]
            return rng.choice(others if len(others) else same)

        return np.array([another(row) for row in rows])

    def split(self, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """(training, held-out) sample indices; of each task the last demonstrations are held out,
        with those that begin as they do.

        At least one demonstration per task is held out if `fraction` > 0 and it has several.
        """
        held = np.zeros(len(self), dtype=bool)
        for task in range(len(self.instructions)):
            demos = np.unique(self.demo[self.task == task])
            count = min(len(demos) - 1, max(1, round(fraction * len(demos)))) if fraction else 0
            last, start = demos[len(demos) - count :], self.start[demos]
            alike = demos[np.isin(start, self.start[last])]
            held |= np.isin(self.demo, alike if len(alike) < len(demos) else last)
        return np.flatnonzero(~held), np.flatnonzero(held)

    def drawn(
        self,
        rows: np.ndarray,
        human: float,
        policy: float,
        seed: int,
        balance: float = 0.0,
        opening: float = 1.0,
    ) -> np.ndarray:
        """`rows`, each as often as an epoch has it: demonstrations once, the others by weight.

        `human` and `policy`: how much a person's and the policy's own chunks of recordings count
        beside a demonstration's. `balance`: at 0 every sample counts alike, at 1 every task does; a
        sample of a task with n samples counts (n_max / n)^balance, n_max being the largest task's.
        `opening`: how much the first H steps of a demonstration count. Only there does the goal
        have to be found by the instruction: soon the way that the hand has come tells it, too
        (the copycat problem of imitation, de Haan et al. 2019, Wen et al. 2020). Where another
        policy led the hand first (DAgger), or a grasp missed, its place tells nothing, or the
        wrong goal: the expert's first steps there count alike.
        At a weight of 2.3 a row comes twice and, by chance, once more.
        """
        weight = np.array([1.0, human, policy])[self.source[rows]]
        first = self.step[rows] < self.actions.shape[1]
        weight[first & (self.source[rows] == DEMONSTRATED)] *= opening
        if balance and len(rows):
            task = self.task[rows]
            samples = np.bincount(task, weight, minlength=len(self.instructions))
            weight *= (samples.max() / samples[task].clip(1.0)) ** balance
        chance = np.random.default_rng([seed, 3]).random(len(rows))
        return np.repeat(rows, (weight + chance).astype(np.int64))


def load_demonstrations(
    folder: str | Path, horizon: int, stride: int = 1, action_dim: int = 7
) -> Demonstrations:
    """Read every demonstration under `folder` (see `read_demonstrations`) into memory.

    What is there twice, as when an export lies beside what it was made from, counts once, and a
    line says so.
    Raises ValueError as `read_demonstrations` does, and for images of several sizes; MemoryError,
    before it has read much, when they are too many.
    """
    images = np.empty(0, np.uint8)
    parts: list[tuple[np.ndarray, ...]] = []
    beginnings: dict[bytes, int] = {}
    start: list[int] = []
    instructions: list[str] = []
    suites: set[str] = set()
    owners: list[int] = []
    pixels: set[str] = set()
    known: set[bytes] = set()
    doubled = 0
    for demo in read_demonstrations(folder, stride, action_dim):
        whole = len(demo.actions) - (0 if demo.finished else horizon - 1)
        starts = np.arange(0, whole, stride)  # what comes after a cut is not known
        if not len(starts):
            continue
        if (mark := _mark(demo)) in known:
            doubled += 1
            continue
        known.add(mark)
        if demo.instruction not in instructions:
            instructions.append(demo.instruction)
        owners.append(instructions.index(demo.instruction))
        suites.add(demo.suite)
        pixels.add(demo.pixels)
        targets, whose = chunks(demo.actions, starts, horizon), sources(demo, starts, horizon)
        seen = demo.images[: len(starts)]
        if parts and seen.shape[1:] != images.shape[1:]:
            raise ValueError(f"{folder}: the files hold images of several sizes; use one size")
        if not parts:
            check_memory(folder, stride, seen[0].nbytes)
        images = grown(images, seen)
        first = hashlib.blake2b(seen[0].tobytes()).digest()
        start.append(beginnings.setdefault(first, len(beginnings)))
        parts.append((demo.proprio[starts], targets, whose, starts))
    if doubled:
        print(f"{folder}: {doubled} demonstrations are there again; each counts once", flush=True)
    if not parts:
        raise ValueError(f"{folder}: none of these recordings holds a chunk of {horizon} steps")
    proprio, actions, source, step = map(np.concatenate, zip(*parts, strict=True))
    lengths = [len(part[0]) for part in parts]
    return Demonstrations(
        images=images,
        proprio=proprio,
        actions=actions,
        task=np.repeat(np.array(owners), lengths),
        demo=np.repeat(np.arange(len(parts)), lengths),
        step=step,
        start=np.array(start),
        source=source,
        instructions=tuple(instructions),
        suites=tuple(sorted(suites)),
        pixels=tuple(sorted(pixels)),
    )


def _mark(demo: Trajectory) -> bytes:
    """Tells a demonstration from others, whatever the format that it comes in."""
    found = hashlib.blake2b(f"{demo.instruction}\n{demo.pixels}".encode(), digest_size=16)
    for part in (demo.actions, demo.proprio):
        found.update(np.ascontiguousarray(part, dtype=np.float32))
    return found.digest()


def check_memory(folder: str | Path, stride: int, sample: int) -> None:
    """Raises MemoryError when pictures of `sample` bytes a step will not find room.

    Each process that `torchrun` starts on this machine reads its own.
    """
    samples = sum(
        math.ceil(steps / stride)
        for file in demonstration_files(Path(folder))
        for steps in lengths(file)
    )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed, free = processes * samples * sample, free_memory()
    if needed > free:
        times = f"{processes} times " if processes > 1 else ""
        raise MemoryError(
            f"{times}the pictures of {samples:,} samples take {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free"
        )


def free_memory() -> int:
    """Bytes that may still be used: of the machine and, in a container, of what it was given."""
    free, group = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such limit
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]))
    return free


def lengths(file: Path) -> list[int]:
    """Steps of each demonstration in one of `demonstration_files`. Raises ValueError."""
    if file.suffix == ".hdf5":
        return libero_hdf5.outline(file)[1]
    return [steps for of in lerobot.outline(file.parents[1]).values() for steps in of]


def grown(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """`whole` with `part` behind it, in its own memory, since a copy would need as much again."""
    if not len(whole):
        return np.array(part)
    end = len(whole)
    whole.resize((end + len(part), *part.shape[1:]), refcheck=False)
    whole[end:] = part
    return whole


def training_rows(data: Demonstrations, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) sample indices: the former by weight, the latter once.

    Raises ValueError when no weight leaves one to train on.
    """
    train, held = data.split(config.val_fraction)
    human, policy = config.human_weight, config.policy_weight
    train = data.drawn(train, human, policy, config.seed, config.balance, config.opening_weight)
    if not len(train):
        raise ValueError(
            "training: in these recordings nobody but the policy drove for a whole chunk; add "
            "demonstrations, or let its own steps count with --policy-weight"
        )
    return train, data.drawn(held, human > 0, policy > 0, config.seed)


def demonstration_files(root: Path) -> list[Path]:
    """HDF5 files and LeRobot's meta/info.json below a folder, in order.

    Links to folders are followed, each folder is visited once. In hidden ones lies what a
    collection or an export has not finished.
    """
    found, seen = [], set()
    for folder, below, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        below[:] = [] if place in seen else [name for name in below if not name.startswith(".")]
        if place not in seen:
            found += [Path(folder, n) for n in names if n.endswith(".hdf5") and n[0] != "."]
            found += [f for f in [Path(folder, lerobot.INFO)] if f.is_file()]
        seen.add(place)
    return sorted(found)


def read_demonstrations(
    folder: str | Path, stride: int = 1, action_dim: int = 7
) -> Iterator[Trajectory]:
    """Every demonstration under `folder`, one in memory at a time, seen every `stride` steps.

    Those of HDF5 read their pictures as they are sliced, until the next one is asked for.
    LeRobotDataset v3 folders are told by their meta/info.json; beside them every `*.hdf5` is read.
    Raises ValueError (one line, naming the file) for an empty folder, a truncated file, missing
    keys, another action size, images that are not square uint8 RGB, or values that are not finite.
    """
    files = demonstration_files(Path(folder))
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


def sources(demo: Trajectory, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Whose the chunks from `starts` are, uint8 [len(starts)]; rest past the end is nobody's."""
    if demo.driver is None:
        return np.full(len(starts), DEMONSTRATED, np.uint8)
    alone = demo.driver == DRIVERS.index("policy")
    until = np.append(0, alone.cumsum())  # steps before each that the policy drove alone
    driven = until[np.minimum(starts + horizon, len(alone))] > until[starts]
    return np.where(driven, POLICY, HUMAN).astype(np.uint8)
