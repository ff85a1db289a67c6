"""Figures of the OOD lab: scores of nominal and perturbed episodes, and what a threshold makes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studio.viz import style
from studio.viz.style import Figure

NOMINAL, PERTURBED = style.IN_DISTRIBUTION, style.OUT_OF_DISTRIBUTION
BINS = 40
WRAP = 30  # letters of an instruction beside its bar
SYMBOLS = {
    "text": "● success &nbsp; ✕ no success",
    "x": 1, "xref": "paper", "xanchor": "right",
    "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
}  # fmt: skip


def histogram_figure(
    nominal: Sequence[float],
    perturbed: Sequence[float],
    label: str,
    threshold: float,
    mu: float,
) -> Figure:
    """Both sides' scores as shares of their side, μ_v and the threshold as lines."""
    low, high = np.quantile(np.concatenate([nominal, perturbed]), [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    width = edges[1] - edges[0]
    bars = [
        _bars(side, edges, width, name, colour)
        for side, name, colour in (
            (nominal, "nominal", NOMINAL),
            (perturbed, "perturbed", PERTURBED),
        )
    ]
    lines = [(mu, "μ<sub>v</sub>", "dot"), (threshold, "threshold", "solid")]
    return {
        "data": bars,
        "layout": style.layout(
            barmode="overlay",
            bargap=0,
            xaxis=style.axis(label),
            yaxis=style.axis("share", tickformat=".0%"),
            showlegend=True,
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.16, "yanchor": "bottom"},
            margin={"l": 56, "r": 16, "t": 56, "b": 48},
            shapes=[_upright(x, dash) for x, _, dash in lines],
            annotations=[_named(*line[:2], threshold) for line in lines],
            height=300,
        ),
    }


def _bars(
    values: Sequence[float], edges: np.ndarray, width: float, name: str, colour: str
) -> dict[str, Any]:
    inside = np.clip(values, edges[0], edges[-1])  # the outermost bars hold what lies beyond
    shares = np.histogram(inside, edges)[0] / len(values)
    return {
        "type": "bar",
        "name": f"{name} ({len(values)})",
        "x": style.numbers(edges[:-1] + width / 2),
        "y": style.numbers(shares),
        "width": float(width),
        "marker": {"color": colour, "line": {"width": 0}},
        "opacity": 0.62,
        "hovertemplate": f"%{{x:.4g}}<br>%{{y:.1%}} of the {name}<extra></extra>",
    }


def _upright(x: float, dash: str) -> dict[str, Any]:
    line = {"color": style.EXPERT if dash == "solid" else "#868e96", "width": 2, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _named(x: float, text: str, threshold: float) -> dict[str, Any]:
    """A line's name on the side of it that leads away from the other line."""
    side = {"xanchor": "right", "xshift": -2} if x < threshold else {"xanchor": "left", "xshift": 2}
    place = {"x": x, "y": 1, "yref": "paper", "yanchor": "bottom", **side}
    return {**place, "text": text, "showarrow": False}


def roc_figure(
    fpr: Sequence[float],
    tpr: Sequence[float],
    point: tuple[float, float],
    title: str,
) -> Figure:
    """The ROC curve with the operating point (false and true positive rate) on it."""
    curve = {
        "type": "scatter",
        "mode": "lines",
        "x": style.numbers(np.asarray(fpr)),
        "y": style.numbers(np.asarray(tpr)),
        "line": {"color": NOMINAL, "width": 2.5},
        "fill": "tozeroy",
        "fillcolor": "rgba(15,157,148,0.10)",
        "hovertemplate": "false alarms %{x:.1%}<br>caught %{y:.1%}<extra></extra>",
    }
    chance = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "#868e96", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    threshold = {
        "type": "scatter",
        "mode": "markers",
        "x": [point[0]],
        "y": [point[1]],
        "marker": {"color": style.EXPERT, "size": 13, "line": {"color": "#fff", "width": 2}},
        "hovertemplate": "at the threshold<br>false alarms %{x:.1%}<br>"
        "caught %{y:.1%}<extra></extra>",
    }
    rate = {"range": [-0.01, 1.01], "tickformat": ".0%"}
    return {
        "data": [curve, chance, threshold],
        "layout": style.layout(
            xaxis=style.axis("false alarms (FPR)", **rate),
            yaxis=style.axis("caught (TPR)", **rate),
            title={"text": title, "font": {"size": 14}, "x": 0.02, "xanchor": "left"},
            height=300,
        ),
    }


def episodes_figure(
    groups: Mapping[str, Sequence[Mapping[str, Any]]], label: str, threshold: float | None
) -> Figure:
    """Every episode as a mark: a column per group, its score upwards, its outcome as the symbol.

    The `threshold` is a line across, None no line.

    An episode is {"score", "text", "success", "perturbed", "id"}; `id` comes back on a click.
    """
    data = []
    for column, episodes in enumerate(groups.values()):
        spread = np.random.default_rng(column).uniform(-0.32, 0.32, len(episodes))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": style.numbers(column + spread),
                "y": style.numbers(np.array([e["score"] for e in episodes])),
                "customdata": [e["id"] for e in episodes],
                "text": [e["text"] for e in episodes],
                "marker": {
                    "size": 8,
                    "opacity": 0.8,
                    "color": [PERTURBED if e["perturbed"] else NOMINAL for e in episodes],
                    "symbol": ["circle" if e["success"] else "x" for e in episodes],
                },
                "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
            }
        )
    at = {"y0": threshold, "y1": threshold, "x0": 0, "x1": 1, "xref": "paper"}
    line = {"type": "line", "line": {"color": style.EXPERT, "width": 2}, **at}
    names = list(groups)
    return {
        "data": data,
        "layout": style.layout(
            xaxis=style.axis(
                "", tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4]
            ),
            yaxis=style.axis(label),
            shapes=[] if threshold is None else [line],
            annotations=[SYMBOLS],
            height=400,
        ),
    }


def sweep_figure(
    x: Sequence[float],
    y: Sequence[float],
    scores: np.ndarray,
    titles: tuple[str, str],
    label: str,
) -> Figure:
    """Scores [len(y), len(x)] over two camera moves."""
    heat = {
        "type": "heatmap",
        "x": style.numbers(np.asarray(x)),
        "y": style.numbers(np.asarray(y)),
        "z": style.numbers(scores),
        "colorscale": style.ENERGY_SCALE,
        "colorbar": style.colorbar(label),
        "hovertemplate": f"{titles[0]} %{{x:g}}<br>{titles[1]} %{{y:g}}<br>{label} %{{z:.4g}}"
        "<extra></extra>",
    }
    return {
        "data": [heat],
        "layout": style.layout(
            xaxis=style.axis(titles[0]), yaxis=style.axis(titles[1]), height=360
        ),
    }


def words_figure(points: Sequence[Mapping[str, Any]], score: str, label: str) -> Figure:
    """The score of every instruction that was tried, one bar each, the task's own on top."""
    colours = {"own": NOMINAL, "paraphrase": "#7fc8c2", "other task": PERTURBED}
    rows = list(reversed(points))
    words = [p["instruction"] for p in rows]
    wrapped = ["<br>".join(textwrap.wrap(text, WRAP)) for text in words]  # the bars need room, too
    lines = sum(text.count("<br>") + 1 for text in wrapped)
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": style.numbers(np.array([p[score] for p in rows], float)),
                "y": words,
                "marker": {"color": [colours[p["kind"]] for p in rows]},
                "text": [p["kind"] for p in rows],
                "textposition": "auto",
                "insidetextanchor": "start",
                "cliponaxis": False,
                "hovertemplate": "%{y}<br>%{text}: %{x:.4g}<extra></extra>",
            }
        ],
        "layout": style.layout(
            xaxis=style.axis(label),
            yaxis=style.axis("", tickfont={"size": 11}, tickvals=words, ticktext=wrapped),
            height=90 + 8 * len(rows) + 14 * lines,
        ),
    }
