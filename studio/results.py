"""Results of an evaluation run: one row per episode, in a journal and in a table.

journal.jsonl     a line as soon as an episode has ended: a killed run loses nothing finished
episodes.parquet  the same rows as one table, written whole whenever the run ends or stops
evaluation.json   what was asked for: checkpoint, options, number of episodes

A row says which trial it is of (`studio.trial.Trial.row`), how it ended (`outcome`, `steps`,
`message`), with what (`checkpoint`, `versions`), and of every plan: `step`, `latency_s`,
`timestep_energies` e_t of the minimum, and each score of `studio.scores`. Plans are lists of equal
length, so one row is one episode and one file holds everything. A score that was not known yet when
an episode ran is None for each of its plans.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from models.whole import whole_file
from studio.events import Outcome, Perturbation, SceneSpec
from studio.recorder import Episode
from studio.scores import SCORES, plan_scores
from studio.trial import Trial, key_of

JOURNAL, TABLE, SETTINGS = "journal.jsonl", "episodes.parquet", "evaluation.json"


def _fields(form: type) -> list[tuple[str, pa.DataType]]:
    """Columns for the fields of a dataclass; one that is a dataclass becomes a struct."""
    hints = get_type_hints(form)
    return [(f.name, _column(hints[f.name])) for f in fields(form)]


def _column(kind: Any) -> pa.DataType:
    if is_dataclass(kind):
        return pa.struct(_fields(kind))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[(get_args(kind) or [kind])[0]]


SCHEMA = pa.schema(
    [
        *_fields(SceneSpec),
        *_fields(Perturbation),
        ("kind", pa.string()),
        ("instruction", pa.string()),
        ("difficulty", pa.int32()),
        ("outcome", pa.string()),
        ("steps", pa.int32()),
        ("message", pa.string()),
        ("checkpoint", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("step", pa.list_(pa.int32())),
        ("latency_s", pa.list_(pa.float32())),
        ("timestep_energies", pa.list_(pa.list_(pa.float32()))),
        *((name, pa.list_(pa.float64())) for name in SCORES),
    ]
)


def episode_row(trial: Trial, episode: Episode) -> dict[str, Any]:
    """The row of an episode that ran to its end."""
    plans = [record.plan for record in episode.plans]
    scores = [plan_scores(plan) for plan in plans]
    return {
        **trial.row(),
        "outcome": str(episode.end.outcome),
        "steps": episode.end.steps,
        "message": episode.end.message,
        "checkpoint": episode.provenance["checkpoint"],
        "versions": episode.provenance["versions"],
        "step": [record.step for record in episode.plans],
        "latency_s": [round(plan.latency_s, 4) for plan in plans],
        "timestep_energies": [plan.trace and plan.trace.timestep_energies[-1, plan.chain].tolist()
                              for plan in plans],
        **{name: [row[name] for row in scores] for name in SCORES},
    }  # fmt: skip


def error_row(trial: Trial, message: str) -> dict[str, Any]:
    """The row of an episode that a fault ended: no result, to be run again."""
    return {**trial.row(), "outcome": str(Outcome.ERROR), "message": message}


class Journal:
    """The journal of a run, open for more rows."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        if not path.exists() and (folder / TABLE).is_file():  # all there is, of a shipped study
            with whole_file(path) as fresh:
                rows = read_table(folder / TABLE)
                fresh.write_text("".join(json.dumps(row) + "\n" for row in rows))
        whole = path.read_bytes() if path.exists() else b""
        self._file = path.open("ab")
        self._file.truncate(whole.rfind(b"\n") + 1)  # a line that a kill cut off

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row. Raises OSError when the disk is full."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()


def read_settings(folder: Path) -> dict[str, Any]:
    """What was asked for; {} where nothing says so."""
    try:
        found = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The finished episodes of a run, each once; errors are none.

    Raises ValueError, naming the file, when the results are cut off or of another schema.
    """
    return list(read_more(folder)[0].values())


def read_more(folder: Path, since: int = 0) -> tuple[dict[str, dict[str, Any]], int]:
    """Finished episodes by key, and how many bytes of the journal they and earlier ones are.

    `since`: how many are known already. Raises like `read_rows`.
    """
    path = folder / JOURNAL
    if path.is_file():
        rows, since = _journal_rows(path, since)
        rows = [_with_every_score(row) for row in rows]
    elif (folder / TABLE).is_file():
        rows = read_table(folder / TABLE)
    else:
        return {}, 0
    return {key_of(row): row for row in rows if row["outcome"] != Outcome.ERROR}, since


def _journal_rows(path: Path, since: int) -> tuple[list[dict[str, Any]], int]:
    with path.open("rb") as file:
        file.seek(since)
        text = file.read()
    lines = text.split(b"\n")[:-1]  # the last is empty, or cut off
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path}: a line is no JSON ({error})") from None
    if any(not {"suite", "kind", "outcome"} <= row.keys() for row in rows):
        raise ValueError(f"{path}: rows of another schema; evaluate into another folder")
    return rows, since + text.rfind(b"\n") + 1


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """All rows as `episodes.parquet`, whole or not at all."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    with whole_file(folder / TABLE) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return folder / TABLE


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of an `episodes.parquet`. Raises ValueError when it is cut off or another table."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cut off, or no Parquet ({error})") from None
    known = [name for name in SCHEMA.names if name in table.column_names]
    if missing := set(SCHEMA.names) - set(known) - set(SCORES):
        raise ValueError(f"{path}: of another schema, without {', '.join(sorted(missing))}")
    schema = pa.schema([SCHEMA.field(name) for name in known])
    rows = table.select(known).cast(schema).to_pylist(maps_as_pydicts="strict")
    return [_with_every_score(row) for row in rows]


def _with_every_score(row: dict[str, Any]) -> dict[str, Any]:
    """`row`, with None per plan for scores that it lacks."""
    plans = len(row.get("step") or ())
    return {name: [None] * plans for name in SCORES} | row


def of_checkpoint(rows: Sequence[dict[str, Any]], sha256: str) -> list[dict[str, Any]]:
    """The rows that this checkpoint made: another one's are no results of it."""
    return [row for row in rows if row.get("checkpoint") == sha256]
