"""The papers' own tables, exactly as printed, with their sources: assets/published/*.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from studio.markdown import markdown
from studio.places import ASSETS

FOLDER = ASSETS / "published"
SUITES = {
    "libero_spatial": "Spat.",
    "libero_object": "Obj.",
    "libero_goal": "Goal",
    "libero_10": "Long",
}  # the columns of Table II


@dataclass(frozen=True, slots=True)
class Published:
    """A table of a paper. Cells are text as printed; `note` says what they are of."""

    title: str
    source: str
    url: str
    note: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def table(self) -> str:
        """As Markdown."""
        return markdown(self.columns, self.rows)

    @property
    def caption(self) -> str:
        """Title, note and source in a line."""
        return f"{self.title}. {self.note} {self.source}, {self.url}"


def _read(name: str) -> Published:
    return Published(**json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


SUCCESS = _read("eb-vla-success")  # Table II
DETECTION = _read("eb-vla-detection")  # Table III
FAILURE = _read("eb-vla-failure")  # Table IV
CORRELATION = _read("vfd-correlation")  # other uncertainties, on LIBERO


def success_table(ours: Mapping[str, str]) -> str:
    """Table II with a last row of our own: a cell per suite, empty where there is none."""
    cells = {SUITES[suite]: cell for suite, cell in ours.items() if suite in SUITES}
    row = ["**this checkpoint**", *(cells.get(column, "") for column in SUCCESS.columns[1:])]
    return markdown(SUCCESS.columns, [*SUCCESS.rows, row])
