"""Making a compiled model cheap to draw; its physics stays as it is."""

from __future__ import annotations

from typing import Any


def simplify(model: Any) -> None:
    """Switch the reflections off."""
    model.mat_reflectance[:] = 0.0
