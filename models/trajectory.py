"""One demonstration: what the readers of LIBERO's HDF5 and of LeRobotDataset v3 give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.config import PIXELS, Pixels

PROPRIO_SIZE = 8
DRIVERS = ("policy", "human", "shared")  # who drove a step; files hold the place in this list


class Pictures(Protocol):
    """uint8 RGB [n, 2, S, S, 3], upright: an array, or what reads one in slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, span: slice) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Trajectory:
    """T steps; `images` are those of the steps 0, stride, 2·stride, ...

    Raises ValueError (one line) on proprioception of another shape, values that are not finite and
    an unknown renderer.
    """

    instruction: str
    suite: str
    images: Pictures  # cameras as `types.CAMERAS`
    proprio: np.ndarray  # float32 [T, 8], as `Observation.proprio`
    actions: np.ndarray  # float32 [T, D], environment scale: gripper -1 opens, +1 closes
    driver: np.ndarray | None = None  # uint8 [T], places in DRIVERS; None: a demonstration
    finished: bool = True  # the motion had come to its end; False: it was cut off
    pixels: Pixels = PIXELS[0]  # the renderer of `images`; files of others than us do not say

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if self.proprio.shape != (steps, PROPRIO_SIZE):
            raise ValueError(
                f"proprio has shape {self.proprio.shape}, expected {(steps, PROPRIO_SIZE)}"
            )
        for name in ("actions", "proprio"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} hold values that are not finite")
        if self.pixels not in PIXELS:
            raise ValueError(f"pixels must be one of {', '.join(PIXELS)}, not {self.pixels!r}")
        if self.driver is not None and (
            self.driver.shape != (steps,) or self.driver.max() >= len(DRIVERS)
        ):
            raise ValueError(f"driver must be {steps} numbers below {len(DRIVERS)}")


def check_actions(actions: np.ndarray, action_dim: int) -> np.ndarray:
    """`actions` as float32 [T, action_dim]. Raises ValueError when they are not."""
    actions = np.asarray(actions, dtype=np.float32)
    if actions.ndim != 2 or actions.shape[1] != action_dim or not len(actions):
        raise ValueError(f"actions have shape {actions.shape}, expected (T, {action_dim})")
    if set(np.unique(actions[:, -1])) == {0, 1}:
        raise ValueError("the gripper's actions are 0 and 1; LIBERO's are -1 (open) and 1 (close)")
    return actions


def check_images(images: np.ndarray) -> np.ndarray:
    """`images`, uint8 [n, S, S, 3]. Raises ValueError when they are not square RGB."""
    if images.shape[1] != images.shape[2] or images.shape[3:] != (3,):
        raise ValueError(f"images must be square RGB, found {images.shape[1:]}")
    return images
