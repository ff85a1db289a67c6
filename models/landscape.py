"""Slices through the energy landscape (EB-VLA Fig. 2).

E is smooth, so a fine grid needs few evaluations: E is taken at the nodes of a small Chebyshev
grid and interpolated by the polynomial through them, which is accepted only when it agrees with E
itself on grid points drawn by chance (a kink between those would be smoothed over). Otherwise more
nodes are tried, and at last every point is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from models.action_head import BoundHead
from models.mcmc import evaluate_energies
from models.types import LandscapeSlice

NODES = (13, 25)  # Chebyshev nodes a side, tried in turn
MAX_GRID = 120  # points along a side
MAX_SPAN = 1000.0  # each way
CHECKS = 40  # grid points that are evaluated to judge the interpolation
TOLERANCE = 1e-3  # largest difference accepted there, in units of the slice's range
ROUNDING = 1e-5  # and in units of E itself: what float32 scatters

EnergyAt = Callable[[np.ndarray], np.ndarray]  # [N, 2] values of the two dimensions -> E [N]


def slice_2d(
    energy: BoundHead,
    centre: np.ndarray,
    timestep: int,
    dims: tuple[int, int],
    span: float | tuple[float, float],
    grid: int,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] | None = None,
) -> LandscapeSlice:
    """E over two dims of action `timestep` of `centre` [H, D_a] (normalised); all else is held.

    u and v [grid] reach `span` to either side of the centre, along each or both of them. `energy`
    is bound to one observation, so the context is encoded once for the whole grid, and in float32:
    what a lower precision scatters is no smooth surface.
    Raises ValueError for numbers out of range, InterruptedError when `stop()` turned true between
    two batches of grid points.
    """
    horizon, size = centre.shape
    spans = (span, span) if isinstance(span, int | float) else tuple(span)
    if not 0 <= timestep < horizon:
        raise ValueError(f"landscape: the chunk has {horizon} actions")
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= d < size for d in dims):
        raise ValueError(f"landscape: choose two different dimensions out of 0-{size - 1}")
    if not 2 <= grid <= MAX_GRID:
        raise ValueError(f"landscape: the grid must have 2 to {MAX_GRID} points a side")
    if len(spans) != 2 or not all(0 < s <= MAX_SPAN for s in spans):
        raise ValueError(
            f"landscape: the range must lie in (0, {MAX_SPAN:g}], one or one for each dimension"
        )
    u, v = (
        centre[timestep, d] + np.linspace(-s, s, grid) for d, s in zip(dims, spans, strict=True)
    )

    def energy_at(points: np.ndarray) -> np.ndarray:
        chunks = np.repeat(centre[None].astype(np.float32), len(points), axis=0)
        chunks[:, timestep, list(dims)] = points
        actions = torch.from_numpy(chunks).to(device).unsqueeze(0)
        return evaluate_energies(energy, actions, stop)[0].mean(-1).cpu().numpy()

    return LandscapeSlice(
        timestep=timestep,
        dims=(int(dims[0]), int(dims[1])),
        u=u.astype(np.float32),
        v=v.astype(np.float32),
        energies=surface(energy_at, u, v).astype(np.float32),
        centre=centre.astype(np.float32),
    )


def surface(energy_at: EnergyAt, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """E [len(v), len(u)] on a grid, exact to `TOLERANCE` of its range or to float32's rounding."""
    grid = _product(u, v)
    chosen = np.random.default_rng(0).choice(len(grid), min(CHECKS, len(grid)), replace=False)
    if len(grid) > 2 * NODES[0] ** 2:
        exact = energy_at(grid[chosen])
        for nodes in NODES:
            if len(grid) <= 2 * nodes**2:
                break
            fitted = _interpolated(energy_at, u, v, nodes)
            error = np.abs(fitted.flat[chosen] - exact).max()
            if error <= max(TOLERANCE * np.ptp(fitted), ROUNDING * np.abs(exact).max()):
                return fitted
    return energy_at(grid).reshape(len(v), len(u))


def _interpolated(energy_at: EnergyAt, u: np.ndarray, v: np.ndarray, nodes: int) -> np.ndarray:
    """The polynomial through E at a Chebyshev grid that spans u and v, on their own grid."""
    (x, to_u), (y, to_v) = (chebyshev(axis, nodes) for axis in (u, v))
    return to_v @ energy_at(_product(x, y)).reshape(nodes, nodes) @ to_u.T


def chebyshev(axis: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [n] over the span of `axis`, and the matrix [len(axis), n] from values there to `axis`.

    Chebyshev points of the second kind and the barycentric formula (Berrut and Trefethen 2004,
    Eq. 4.2 and 5.4).
    """
    j = np.arange(nodes)
    low, high = axis.min(), axis.max()
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * j / (nodes - 1))
    weights = np.where(j % 2, -1.0, 1.0) * np.where(j % (nodes - 1), 1.0, 0.5)
    distance = axis[:, None] - x
    hit = np.abs(distance) < 1e-12 * (high - low)
    terms = weights / np.where(hit, 1.0, distance)
    matrix = terms / terms.sum(1, keepdims=True)
    on_node = hit.any(1)
    matrix[on_node] = hit[on_node]
    return x, matrix


def _product(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """All (u, v), u running fastest: [len(u)·len(v), 2]."""
    return np.stack([np.tile(u, len(v)), np.repeat(v, len(u))], axis=1)
