"""Checking a form, that is a frozen dataclass, against the values that its fields may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields


def check_fields(form: object, name: str, bounds: Mapping[str, tuple]) -> None:
    """Raise ValueError for a field of the dataclass `form` that is outside its bounds.

    `bounds`: the lowest and the highest number, or all words, of a field; a bool needs none.
    """
    for f in fields(form):
        value = getattr(form, f.name)
        if f.type == "bool":
            if not isinstance(value, bool):
                raise ValueError(f"{name}: {f.name} must be true or false, not {value!r}")
            continue
        allowed = bounds[f.name]
        if f.type == "str":
            if value not in allowed:
                raise ValueError(f"{name}: {f.name} is one of {', '.join(allowed)}, not {value!r}")
            continue
        low, high = allowed
        wanted, kind = (int, "a whole number") if f.type == "int" else (int | float, "a number")
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ValueError(f"{name}: {f.name} must be {kind}, not {value!r}")
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name}: {f.name} must lie in [{low:g}, {high:g}], not {value!r}")
