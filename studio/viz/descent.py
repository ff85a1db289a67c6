"""The MCMC descent of one plan, iteration by iteration (EB-VLA Eq. 2-3), as an animated figure.

Panels: the slice with the projected paths of all chains · E(a^(k)) and the gradient norms over
iterations · per-timestep energies e_t · effective step sizes α·exp(e_t/τ). Frame k advances all
of them to a^(k). The page has the play button and the slider.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.types import DescentTrace, LandscapeSlice
from studio.viz import style
from studio.viz.landscape import Reference, contour_mark, energy_map, marks
from studio.viz.style import Figure

FAINT = "rgba(127,140,141,.45)"  # other chains and what is still to come


def descent_figure(
    s: LandscapeSlice, trace: DescentTrace, chain: int, expert: Reference | None = None
) -> Figure:
    """Figure with K + 1 frames named "0" … "K"; it starts on the last one.

    The chosen `chain` is bold, the others faint; `expert` is a mark on the slice and a level of E.
    Paths are projected on the slice's two dimensions: all other coordinates of the chunk move as
    well, so a path need not follow the slice's gradient.
    """
    last = len(trace.energies) - 1
    moving = [
        *_slice_movers(s, trace, chain),
        *_energy_movers(trace, chain),
        *_timestep_movers(trace),
    ]
    still = [*_still(s, trace, chain), *_expert(s, trace, chain, expert)]
    frames = [
        {
            "name": str(k),
            "data": [draw(k) for draw in moving],
            "traces": list(range(len(still), len(still) + len(moving))),
        }
        for k in range(last + 1)
    ]
    return {
        "data": [*still, *frames[last]["data"]],
        "layout": _layout(s, trace, expert),
        "frames": frames,
    }


def _still(s: LandscapeSlice, trace: DescentTrace, chain: int) -> list[dict[str, Any]]:
    """Traces that no frame changes: the map, whole curves in faint, both heatmaps."""
    iterations = list(range(len(trace.energies)))
    curves = [
        {
            **_line(iterations, style.numbers(trace.energies[:, n]), FAINT, 1.2),
            "xaxis": "x2",
            "yaxis": "y2",
        }
        for n in range(trace.energies.shape[1])
    ]
    gradients = [
        {
            **_line(iterations[:-1], style.numbers(trace.grad_norms[:, n]), FAINT, 1.2),
            "xaxis": "x3",
            "yaxis": "y3",
        }
        for n in range(trace.grad_norms.shape[1])
    ]
    per_step = [
        _heatmap(trace.timestep_energies[:, chain].T, "e_t", "x4", "y4", "coloraxis2"),
        _heatmap(trace.step_sizes[:, chain].T, "α·exp(e_t/τ)", "x5", "y5", "coloraxis3"),
    ]
    return [energy_map(s, coloraxis="coloraxis"), *curves, *gradients, *per_step]


def _expert(
    s: LandscapeSlice, trace: DescentTrace, chain: int, expert: Reference | None
) -> list[dict[str, Any]]:
    """The expert's action on the slice and its energy beside the descent's."""
    if expert is None:
        return []
    mark = next(m for m in marks(s, trace, chain, expert) if m.kind == "expert")
    last = len(trace.energies) - 1
    level = {
        **_line([0, last], style.numbers(np.full(2, expert.energy)), style.EXPERT, 1.6),
        "name": f"E of the {expert.label}'s chunk",
        "xaxis": "x2",
        "yaxis": "y2",
        "hoverinfo": "name+y",
    }
    level["line"]["dash"] = "dash"
    return [contour_mark(s, mark), level]


def _slice_movers(s: LandscapeSlice, trace: DescentTrace, chain: int) -> list[Any]:
    """Per chain its path so far and its head; the chosen one last, on top, with an ink outline."""
    paths = trace.actions[:, :, s.timestep][:, :, list(s.dims)]  # [K+1, N, 2]
    others = [n for n in range(paths.shape[1]) if n != chain]

    def line(n: int, color: str, width: float) -> Any:
        return lambda k: _line(
            style.numbers(paths[: k + 1, n, 0]), style.numbers(paths[: k + 1, n, 1]), color, width
        )

    def heads(k: int) -> dict[str, Any]:
        members = [*others, chain]
        return {
            "type": "scatter",
            "mode": "markers",
            "x": style.numbers(paths[k, members, 0]),
            "y": style.numbers(paths[k, members, 1]),
            "marker": {
                "size": [8] * len(others) + [14],
                "symbol": ["circle"] * len(others) + ["star"],
                "color": style.PAPER,
                "line": {"color": style.INK, "width": 1.4},
            },
            "hovertemplate": f"a⁽{k}⁾<br>%{{x:.3f}}, %{{y:.3f}}<extra></extra>",
        }

    faint = [line(n, "rgba(255,255,255,.55)", 1.2) for n in others]
    return [*faint, line(chain, style.INK, 4.5), line(chain, style.PAPER, 2.2), heads]


def _energy_movers(trace: DescentTrace, chain: int) -> list[Any]:
    def energy(k: int) -> dict[str, Any]:
        curve = trace.energies[: k + 1, chain]
        return {**_curve(curve, "E"), "xaxis": "x2", "yaxis": "y2"}

    def gradient(k: int) -> dict[str, Any]:
        return {**_curve(trace.grad_norms[:k, chain], "‖g‖"), "xaxis": "x3", "yaxis": "y3"}

    return [energy, gradient]


def _timestep_movers(trace: DescentTrace) -> list[Any]:
    horizon = trace.timestep_energies.shape[2]

    def cursor(axis: str, last: int) -> Any:
        def draw(k: int) -> dict[str, Any]:
            x = min(k, last)
            line = _line([x, x], [0.5, horizon + 0.5], style.OUT_OF_DISTRIBUTION, 2)
            return {**line, "xaxis": f"x{axis}", "yaxis": f"y{axis}"}

        return draw

    return [cursor("4", len(trace.energies) - 1), cursor("5", len(trace.step_sizes) - 1)]


def _line(x: list[Any], y: list[Any], color: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": color, "width": width},
        "hoverinfo": "skip",
    }


def _curve(values: np.ndarray, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(values))),
        "y": style.numbers(values),
        "line": {"color": style.IN_DISTRIBUTION, "width": 2.5},
        "marker": {"size": [0] * (len(values) - 1) + [9], "color": style.IN_DISTRIBUTION},
        "hovertemplate": f"iteration %{{x}}<br>{name} %{{y:.4g}}<extra></extra>",
    }


def _heatmap(z: np.ndarray, name: str, x: str, y: str, coloraxis: str) -> dict[str, Any]:
    """`z` [H, iterations]; rows are actions 1 … H of the chunk."""
    return {
        "type": "heatmap",
        "z": style.numbers(z),
        "y": list(range(1, len(z) + 1)),
        "xaxis": x,
        "yaxis": y,
        "coloraxis": coloraxis,
        "hovertemplate": f"iteration %{{x}}, action %{{y}}<br>{name} %{{z:.4g}}<extra></extra>",
    }


def _layout(s: LandscapeSlice, trace: DescentTrace, expert: Reference | None) -> dict[str, Any]:
    paths = trace.actions[:, :, s.timestep][:, :, list(s.dims)].reshape(-1, 2)
    if expert is not None:
        paths = np.append(paths, expert.actions[[s.timestep]][:, list(s.dims)], axis=0)
    title = style.action_axis_title
    left, middle, right = [0.0, 0.32], [0.47, 0.69], [0.77, 0.93]
    upper, lower = [0.57, 1.0], [0.0, 0.43]
    iterations = {"title": {"text": "iteration k", "standoff": 6}}
    bar = {"len": 0.43, "yanchor": "bottom", "x": 0.94}
    return style.layout(
        xaxis=style.axis(title(s.dims[0]), domain=left, range=_range(s.u, paths[:, 0])),
        yaxis=style.axis(title(s.dims[1]), range=_range(s.v, paths[:, 1])),
        xaxis2=style.axis("", domain=middle, anchor="y2", matches="x3", showticklabels=False),
        yaxis2=style.axis("E(a⁽ᵏ⁾)", domain=upper, anchor="x2"),
        xaxis3=style.axis("", domain=middle, anchor="y3") | iterations,
        yaxis3=style.axis("‖g⁽ᵏ⁾‖", domain=lower, anchor="x3", rangemode="tozero"),
        xaxis4=style.axis("", domain=right, anchor="y4", showgrid=False),
        yaxis4=style.axis("action t", domain=upper, anchor="x4", showgrid=False, dtick=1),
        xaxis5=style.axis("", domain=right, anchor="y5", showgrid=False) | iterations,
        yaxis5=style.axis("action t", domain=lower, anchor="x5", showgrid=False, dtick=1),
        coloraxis=_scale(style.colorbar("E", x=0.33, nticks=6)),
        coloraxis2=_scale(style.colorbar("e<sub>t</sub>", y=upper[0], **bar)),
        coloraxis3=_scale(style.colorbar("α·exp(e<sub>t</sub>/τ)", y=lower[0], **bar)),
        meta={"narrow": _narrow()},
    )


def _scale(bar: dict[str, Any]) -> dict[str, Any]:
    return {"colorscale": style.ENERGY_SCALE, "colorbar": bar}


def _range(grid: np.ndarray, path: np.ndarray) -> list[float]:
    """Room for the slice, every chain's path and the expert, with a margin of 4%."""
    low, high = min(grid[0], path.min()), max(grid[-1], path.max())
    margin = 0.04 * float(high - low)
    return [float(low) - margin, float(high) + margin]


def _narrow() -> dict[str, Any]:
    """Layout overrides of a narrow page: all panels below one another."""
    rows = [[0.72, 1.0], [0.55, 0.67], [0.38, 0.5], [0.2, 0.32], [0.0, 0.12]]
    overrides: dict[str, Any] = {"height": 1250}
    for i, rows_domain in enumerate(rows, start=1):
        suffix = "" if i == 1 else str(i)
        overrides[f"xaxis{suffix}.domain"] = [0.0, 0.86]
        overrides[f"yaxis{suffix}.domain"] = rows_domain
    for suffix, row in (("", rows[0]), ("2", rows[3]), ("3", rows[4])):
        overrides[f"coloraxis{suffix}.colorbar.x"] = 0.88
        overrides[f"coloraxis{suffix}.colorbar.y"] = row[0]
        overrides[f"coloraxis{suffix}.colorbar.yanchor"] = "bottom"
        overrides[f"coloraxis{suffix}.colorbar.len"] = row[1] - row[0]
    return overrides
