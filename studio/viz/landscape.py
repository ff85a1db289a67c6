"""The energy landscape around one plan: a contour map or a surface (EB-VLA Fig. 2)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from models.types import ACTION_NAMES, DescentTrace, LandscapeSlice
from studio.viz import style

Figure = dict[str, Any]


def slice_figure(
    s: LandscapeSlice,
    trace: DescentTrace | None,
    chain: int,
    mode: Literal["contour", "surface"] = "contour",
) -> Figure:
    """Figure of the slice `s` with a^(0) and the refined action a^(K) of `chain` marked.

    Without a trace only the centre of the slice is marked. Raises ValueError for an unknown mode.
    """
    if mode not in ("contour", "surface"):
        raise ValueError(f"landscape: mode must be 'contour' or 'surface', not {mode!r}")
    draw = _contour if mode == "contour" else _surface
    figure = draw(s, _points(s, trace, chain))
    names = " × ".join(ACTION_NAMES[d] for d in s.dims)
    figure["layout"]["title"] = {
        "text": f"E over {names} of action {s.timestep + 1} of {len(s.centre)}",
        "font": {"size": 15},
        "x": 0.02,
        "xanchor": "left",
    }
    return figure


def energy_map(s: LandscapeSlice, **options: Any) -> dict[str, Any]:
    """The slice as one trace: energies as colour, with thin level lines over it."""
    return {
        "type": "contour",
        "x": style.numbers(s.u),
        "y": style.numbers(s.v),
        "z": style.numbers(s.energies),
        "colorscale": style.ENERGY_SCALE,
        "contours": {"coloring": "heatmap"},
        "ncontours": 14,
        "line": {"width": 0.6, "color": "rgba(255,255,255,.45)"},
        "hovertemplate": _hover(s, "%{z:.4g}"),
        **options,
    }


def at(s: LandscapeSlice, u: float, v: float) -> float:
    """E of the slice at (u, v), bilinear; NaN outside of it."""
    i, j = _bracket(s.v, v), _bracket(s.u, u)
    if i is None or j is None:
        return float("nan")
    (i0, wi), (j0, wj) = i, j
    z = s.energies[i0 : i0 + 2, j0 : j0 + 2]
    return float(np.array([1 - wi, wi]) @ z @ np.array([1 - wj, wj]))


def _bracket(grid: np.ndarray, x: float) -> tuple[int, float] | None:
    if not grid[0] <= x <= grid[-1]:
        return None
    i = min(int(np.searchsorted(grid, x, side="right")) - 1, len(grid) - 2)
    return i, float((x - grid[i]) / (grid[i + 1] - grid[i]))


def _points(
    s: LandscapeSlice, trace: DescentTrace | None, chain: int
) -> list[tuple[str, np.ndarray, str]]:
    """(label, [u, v], symbol) of the marked actions."""
    dims = list(s.dims)
    if trace is None:
        return [("centre", s.centre[s.timestep, dims], "star")]
    path = trace.actions[:, chain, s.timestep][:, dims]
    return [("a⁽⁰⁾", path[0], "circle-open"), ("a⁽ᴷ⁾ refined", path[-1], "star")]


def _hover(s: LandscapeSlice, energy: str) -> str:
    a, b = (ACTION_NAMES[d] for d in s.dims)
    return f"{a} %{{x:.3f}}<br>{b} %{{y:.3f}}<br>E {energy}<extra></extra>"


def _contour(s: LandscapeSlice, points: list[tuple[str, np.ndarray, str]]) -> Figure:
    marks = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": label,
            "x": [float(p[0])],
            "y": [float(p[1])],
            "text": [label],
            "textposition": "bottom center" if "open" in symbol else "top center",
            "textfont": {"color": style.PAPER, "size": 13, "shadow": "0 0 4px #06303a"},
            "marker": {
                "symbol": symbol,
                "size": 15,
                "color": style.PAPER,
                "line": {"color": style.PAPER if "open" in symbol else style.INK, "width": 1.6},
            },
            "hovertemplate": f"{label}<br>%{{x:.3f}}, %{{y:.3f}}<extra></extra>",
        }
        for label, p, symbol in points
    ]
    return {
        "data": [energy_map(s, colorbar=style.colorbar("E")), *marks],
        "layout": style.layout(
            xaxis=style.axis(style.action_axis_title(s.dims[0]), range=_extent(s.u)),
            yaxis=style.axis(style.action_axis_title(s.dims[1]), range=_extent(s.v)),
        ),
    }


def _surface(s: LandscapeSlice, points: list[tuple[str, np.ndarray, str]]) -> Figure:
    lift = 0.015 * float(np.ptp(s.energies))  # keeps a mark in front of the surface it lies on
    surface = {
        "type": "surface",
        "x": style.numbers(s.u),
        "y": style.numbers(s.v),
        "z": style.numbers(s.energies),
        "colorscale": style.ENERGY_SCALE,
        "colorbar": style.colorbar("E"),
        "contours": {"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
        "hovertemplate": _hover(s, "%{z:.4g}"),
    }
    marks = [
        {
            "type": "scatter3d",
            "mode": "markers+text",
            "name": label,
            "x": [float(p[0])],
            "y": [float(p[1])],
            "z": [z + lift],
            "text": [label],
            "marker": {
                "size": 7,
                "symbol": "circle-open" if "open" in symbol else "diamond",
                "color": style.OUT_OF_DISTRIBUTION if "open" in symbol else style.PAPER,
                "line": {"color": style.INK, "width": 2},
            },
            "hovertemplate": f"{label}<br>E %{{z:.4g}}<extra></extra>",
        }
        for label, p, symbol in points
        if np.isfinite(z := at(s, float(p[0]), float(p[1])))
    ]
    a, b = (ACTION_NAMES[d] for d in s.dims)
    scene = {
        "xaxis": {"title": {"text": a}},
        "yaxis": {"title": {"text": b}},
        "zaxis": {"title": {"text": "E"}},
        "camera": {"eye": {"x": 1.35, "y": -1.45, "z": 0.95}},
        "aspectmode": "manual",
        "aspectratio": {"x": 1.25, "y": 1.25, "z": 0.75},
    }
    margin = {"l": 0, "r": 0, "t": 36, "b": 0}
    return {"data": [surface, *marks], "layout": style.layout(scene=scene, margin=margin)}


def _extent(grid: np.ndarray) -> list[float]:
    return [float(grid[0]), float(grid[-1])]
