"""Forms of the page and command lines: one dataclass each, mapped by field name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

Form = TypeVar("Form")


def fill(form: type[Form], values: Mapping[str, Any]) -> Form:
    """The dataclass `form` from what a page sent; an empty box is the default.

    Raises ValueError that names the field when a value is of another kind.
    """
    given = {}
    for field in dataclasses.fields(form):
        value = values.get(field.name)
        if value is not None and value != "":
            given[field.name] = _value(field.name, str(field.type).partition(" |")[0], value)
    return form(**given)


def _value(name: str, kind: str, value: Any) -> Any:
    words = name.replace("_", " ")
    if kind in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise ValueError(f"{words}: a number is needed, not {str(value)[:40]!r}")
        if kind == "int" and value != int(value):
            raise ValueError(f"{words}: a whole number is needed, not {value:g}")
        return int(value) if kind == "int" else float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value.strip()
    raise ValueError(f"{words}: {value!r} does not fit here")


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def options(form: object, names: Collection[str] | None = None) -> list[str]:
    """Command-line options for the fields of `form` that differ from their defaults.

    names: the fields that the command knows (all, unless told). `batch_size=8` becomes
    `--batch-size 8`, a true flag its name alone.
    """
    words: list[str] = []
    for field in dataclasses.fields(form):
        value = getattr(form, field.name)
        if (names is not None and field.name not in names) or value == field.default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if value is not True:
            words.append(f"{value:.12g}" if isinstance(value, float) else str(value))
    return words
