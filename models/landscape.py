"""Slices through the energy landscape (EB-VLA Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from models.energy_head import BoundEnergy
from models.mcmc import score
from models.types import LandscapeSlice


def slice_2d(
    energy: BoundEnergy,
    centre: np.ndarray,
    timestep: int,
    dims: tuple[int, int],
    u: np.ndarray,
    v: np.ndarray,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] | None = None,
) -> LandscapeSlice:
    """E over dims (u, v) of action `timestep` of `centre` [H, D_a]; all else is held.

    `energy` is bound to one observation, so the context is encoded once for the whole grid.
    Raises ValueError for a timestep or dimensions outside the chunk, InterruptedError when
    `stop()` turned true between two batches of grid points.
    """
    horizon, size = centre.shape
    if not 0 <= timestep < horizon:
        raise ValueError(f"landscape: timestep {timestep} is outside the chunk of {horizon}")
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= d < size for d in dims):
        raise ValueError(f"landscape: dims must be two different numbers below {size}, not {dims}")
    points = np.repeat(centre[None].astype(np.float32), len(u) * len(v), axis=0)
    points[:, timestep, dims[0]] = np.tile(u, len(v))
    points[:, timestep, dims[1]] = np.repeat(v, len(u))
    energies = score(energy, torch.from_numpy(points).to(device).unsqueeze(0), stop).mean(-1)
    return LandscapeSlice(
        timestep=timestep,
        dims=(int(dims[0]), int(dims[1])),
        u=u.astype(np.float32),
        v=v.astype(np.float32),
        energies=energies.cpu().numpy().reshape(len(v), len(u)),
        centre=centre.astype(np.float32),
    )
