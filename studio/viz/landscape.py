"""The energy landscape around one plan: a contour map or a surface (EB-VLA Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from models.types import ACTION_NAMES, DescentTrace, LandscapeSlice
from studio.viz import style
from studio.viz.style import Figure


@dataclass(frozen=True, slots=True)
class Reference:
    """Another chunk to compare a plan with, float32 [H, D] normalised, and its E(a, C)."""

    label: str
    actions: np.ndarray
    energy: float


@dataclass(frozen=True, slots=True)
class SliceMark:
    """One action on the slice; `energy` is that of its whole chunk, not of the slice below it."""

    kind: Literal["start", "refined", "expert"]
    label: str
    at: np.ndarray  # [u, v]
    energy: float

    def hover(self, x: str, y: str) -> str:
        """Plotly's template, `x` and `y` being its names of the coordinates."""
        place = f"{x} %{{x:.3f}}<br>{y} %{{y:.3f}}"
        return f"{self.label}<br>{place}<br>E(a, C) {self.energy:.4g}<extra></extra>"


SYMBOLS = {"start": "circle-open", "refined": "star", "expert": "cross"}
SYMBOLS_3D = {"start": "circle", "refined": "diamond", "expert": "cross"}
PINS = {"start": 0.12, "refined": 0.12, "expert": 0.24}  # heights, of the slice's range
COLORS = {"start": style.PAPER, "refined": style.PAPER, "expert": style.EXPERT}
LABELS_AT = {"start": "bottom center", "refined": "top center", "expert": "bottom center"}


def slice_figure(
    s: LandscapeSlice,
    trace: DescentTrace,
    chain: int,
    mode: Literal["contour", "surface"] = "contour",
    expert: Reference | None = None,
) -> Figure:
    """Figure of the slice `s` with a^(0), the refined action a^(K) of `chain` and the expert's.

    Raises ValueError for an unknown mode.
    """
    if mode not in ("contour", "surface"):
        raise ValueError(f"landscape: mode must be 'contour' or 'surface', not {mode!r}")
    draw = _contour if mode == "contour" else _surface
    figure = draw(s, marks(s, trace, chain, expert))
    names = " × ".join(ACTION_NAMES[d] for d in s.dims)
    figure["layout"]["title"] = {
        "text": f"E over {names} of action {s.timestep + 1} of {len(s.centre)}",
        "font": {"size": 15},
        "x": 0.02,
        "xanchor": "left",
    }
    return figure


def marks(
    s: LandscapeSlice, trace: DescentTrace, chain: int, expert: Reference | None = None
) -> list[SliceMark]:
    """What is marked on the slice: a^(0), a^(K) and, when it is known, the expert's action."""
    dims = list(s.dims)
    path, energies = trace.actions[:, chain, s.timestep][:, dims], trace.energies[:, chain]
    found = [
        SliceMark("start", "a⁽⁰⁾", path[0], float(energies[0])),
        SliceMark("refined", "a⁽ᴷ⁾ refined", path[-1], float(energies[-1])),
    ]
    if expert is not None:
        place = expert.actions[s.timestep, dims]
        found.append(SliceMark("expert", expert.label, place, expert.energy))
    return found


def reading(
    s: LandscapeSlice, trace: DescentTrace, chain: int, expert: Reference | None = None
) -> list[dict[str, Any]]:
    """The marks in words: kind, label, energy, and whether the slice shows them."""
    return [
        {
            "kind": mark.kind,
            "label": mark.label,
            "energy": mark.energy,
            "inside": bool(np.isfinite(at(s, *map(float, mark.at)))),
        }
        for mark in marks(s, trace, chain, expert)
    ]


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
        "hovertemplate": _hover(s),
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


def _hover(s: LandscapeSlice) -> str:
    a, b = (ACTION_NAMES[d] for d in s.dims)
    return f"{a} %{{x:.3f}}<br>{b} %{{y:.3f}}<br>E %{{z:.4g}}<extra></extra>"


def _contour(s: LandscapeSlice, points: list[SliceMark]) -> Figure:
    return {
        "data": [
            energy_map(s, colorbar=style.colorbar("E")),
            *(contour_mark(s, mark, text=mark.label) for mark in points),
        ],
        "layout": style.layout(
            xaxis=style.axis(style.action_axis_title(s.dims[0]), range=_extent(s.u)),
            yaxis=style.axis(style.action_axis_title(s.dims[1]), range=_extent(s.v)),
        ),
    }


def contour_mark(s: LandscapeSlice, mark: SliceMark, text: str = "") -> dict[str, Any]:
    """One mark on a map of the slice."""
    outline = style.PAPER if mark.kind != "refined" else style.INK
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": mark.label,
        "x": [float(mark.at[0])],
        "y": [float(mark.at[1])],
        "text": [text],
        "textposition": LABELS_AT[mark.kind],
        "textfont": {"color": style.PAPER, "size": 13, "shadow": "0 0 4px #06303a"},
        "marker": {
            "symbol": SYMBOLS[mark.kind],
            "size": 15,
            "color": COLORS[mark.kind],
            "line": {"color": outline, "width": 1.6},
        },
        "hovertemplate": mark.hover(*(ACTION_NAMES[d] for d in s.dims)),
    }


def _surface(s: LandscapeSlice, points: list[SliceMark]) -> Figure:
    surface = {
        "type": "surface",
        "x": style.numbers(s.u),
        "y": style.numbers(s.v),
        "z": style.numbers(s.energies),
        "colorscale": style.ENERGY_SCALE,
        "colorbar": style.colorbar("E"),
        "contours": {"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
        "hovertemplate": _hover(s),
    }
    pins = [_pin(s, mark, z) for mark in points if np.isfinite(z := at(s, *map(float, mark.at)))]
    a, b = (ACTION_NAMES[d] for d in s.dims)
    scene = {
        "xaxis": {"title": {"text": a}},
        "yaxis": {"title": {"text": b}},
        "zaxis": {"title": {"text": "E"}},
        "camera": {"eye": {"x": 1.1, "y": -1.2, "z": 1.5}},
        "aspectmode": "manual",
        "aspectratio": {"x": 1.25, "y": 1.25, "z": 0.75},
    }
    margin = {"l": 0, "r": 0, "t": 36, "b": 0}
    return {"data": [surface, *pins], "layout": style.layout(scene=scene, margin=margin)}


def _pin(s: LandscapeSlice, mark: SliceMark, z: float) -> dict[str, Any]:
    """A mark on a needle that stands on the surface at height `z`, so that no slope hides it."""
    x, y = map(float, mark.at)
    top = z + PINS[mark.kind] * float(np.ptp(s.energies))
    return {
        "type": "scatter3d",
        "mode": "lines+markers",
        "name": mark.label,
        "x": [x, x],
        "y": [y, y],
        "z": [z, top],
        "line": {"color": COLORS[mark.kind], "width": 4},
        "marker": {
            "size": [0, 7],
            "symbol": SYMBOLS_3D[mark.kind],
            "color": COLORS[mark.kind],
            "line": {"color": style.INK, "width": 2},
        },
        "hovertemplate": mark.hover(*(ACTION_NAMES[d] for d in s.dims)),
    }


def _extent(grid: np.ndarray) -> list[float]:
    return [float(grid[0]), float(grid[-1])]
