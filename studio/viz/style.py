"""The look that all figures share: two accents, one energy scale, axes without noise.

Figures are plain dicts in Plotly's JSON schema, with lists of rounded floats in them, so that they
cross the socket without plotly's Python objects. Backgrounds are transparent and the colour of text
and grid is left to the page, which knows whether its theme is dark or light.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.types import ACTION_NAMES

Figure = dict[str, Any]

IN_DISTRIBUTION = "#0f9d94"
OUT_OF_DISTRIBUTION = "#ee6c1a"
EXPERT = "#d6336c"  # neither of the two accents, seen on both ends of the energy scale
INK, PAPER = "#0b2530", "#ffffff"  # marks on the energy scale: legible on both of its ends

# Low energy is deep teal (a valley), high energy pale sand; lightness rises monotonically.
ENERGY_SCALE: list[list[float | str]] = [
    [0.0, "#06303a"],
    [0.22, "#0b5d68"],
    [0.45, "#2f928f"],
    [0.7, "#a3c7a6"],
    [1.0, "#f8e6bd"],
]


def numbers(values: np.ndarray, digits: int = 5) -> list[Any]:
    """`values` as nested lists of floats with `digits` significant digits; NaN and ±inf -> None.

    JSON knows no NaN, and Plotly draws None as a gap.
    """
    if np.ndim(values) > 1:
        return [numbers(row, digits) for row in values]
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in np.asarray(values, float)]


def axis(title: str, **options: Any) -> dict[str, Any]:
    """A quiet axis: a title, no zero line, room for labels."""
    return {
        "title": {"text": title, "standoff": 8},
        "zeroline": False,
        "automargin": True,
        **options,
    }


def colorbar(title: str, **options: Any) -> dict[str, Any]:
    """A thin colour bar with its title on top."""
    return {
        "title": {"text": title, "side": "top"},
        "thickness": 10,
        "outlinewidth": 0,
        "tickfont": {"size": 11},
        **options,
    }


def layout(**options: Any) -> dict[str, Any]:
    """The common layout; `options` override it."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
        "showlegend": False,
        "hovermode": "closest",
        **options,
    }


def action_axis_title(dim: int) -> str:
    """Axis title of one action dimension."""
    return f"{ACTION_NAMES[dim]} (normalised)"
