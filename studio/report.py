"""A study as one HTML file that needs nothing else: figures, tables, and what they are of.

`python -m studio.report runs/nominal runs/moved --out report.html`
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from string import Template
from typing import Any

from models.whole import whole_file
from studio import correlation, detection, failure, lab, published, success
from studio.detection import DEFAULT_K
from studio.lab import Question, Selection
from studio.measures import MEAN, UNITS
from studio.places import ASSETS, plotly_script
from studio.scores import SCORES

TEMPLATE = ASSETS / "lab" / "report.html"


def report(question: Question) -> str:
    """The HTML of a study. Raises ValueError when its episodes can't be compared."""
    rows = question.selection.rows()
    nominal, perturbed = lab.sides(rows)
    question = lab.scored(question)
    found = lab.answer(question)
    if problem := found.get("problem"):
        raise ValueError(problem)
    _, study = lab.study(question)
    suites = ", ".join(sorted({row["suite"] for row in rows}))
    chosen = question.selection
    only = {"task": chosen.task, "difficulty": chosen.difficulty, "move": chosen.move}
    narrowed = "".join(f"; {name} {value} only" for name, value in only.items() if value)
    names = {name: f"figure-{name}" for name in found["figures"]}
    return Template(TEMPLATE.read_text()).substitute(
        title="Out-of-distribution study",
        subtitle=html.escape(
            f"{len(nominal)} nominal and {len(perturbed)} perturbed episodes of {suites}"
            f"{narrowed}; checkpoint {rows[0]['checkpoint'][:12]}; {lab.axis_label(question)}; "
            f"k = {question.k:g}; runs {', '.join(sorted({row['run'] for row in rows}))}; "
            f"written on {date.today()}"
        ),
        tiles=_tiles(found, study),
        figures="".join(f'<figure id="{name}"></figure>' for name in names.values()),
        sections="".join(_sections(question, study, nominal, perturbed)),
        plotly=plotly_script().read_text(encoding="utf-8").replace("</script", "<\\/script"),
        data=_script({names[name]: figure for name, figure in found["figures"].items()}),
    )


def _script(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(value).replace("</", "<\\/")


def _tiles(found: dict[str, Any], study: detection.Study) -> str:
    confusion, whole = found["confusion"], study.everything
    held_out = whole.held_out.balanced_accuracy if whole.held_out else None
    tiles = [
        ("AUROC", f"{whole.auroc:.3f}", f"95%: {whole.low:.3f} – {whole.high:.3f}"),
        ("balanced accuracy", f"{confusion['balanced_accuracy']:.1%}", "at this threshold"),
        ("held out", "–" if held_out is None else f"{held_out:.1%}", "k chosen on the other half"),
        ("caught", f"{confusion['true_positive_rate']:.1%}", "of the perturbed"),
        ("false alarms", f"{confusion['false_positive_rate']:.1%}", "of the nominal"),
    ]
    return "".join(f"<div>{a}<b>{b}</b><small>{c}</small></div>" for a, b, c in tiles)


def _sections(
    question: Question, study: detection.Study, nominal: list, perturbed: list
) -> Iterable[str]:
    yield _section("Operating points", detection.operating_table(study), "As in Table III.")
    yield _section("Published", published.DETECTION.table, published.DETECTION.caption)
    yield _section("By group", detection.groups_table(study))
    yield _section("Every score", detection.table(nominal, perturbed, question.unit))
    yield _section("Success, nominal", success.table(nominal))
    yield _section("Success, perturbed", success.table(perturbed))
    rates = published.success_table(success.whole_suites(nominal))
    yield _section("Success, published", rates, published.SUCCESS.caption)
    yield from _failure_sections(nominal, perturbed)
    yield _section("As published", published.FAILURE.table, published.FAILURE.caption)
    if against := correlation.table([*nominal, *perturbed]):
        yield _section("Score against success, by task", against, "Over all of these episodes.")
        yield _section("As published", published.CORRELATION.table, published.CORRELATION.caption)


def _failure_sections(nominal: list, perturbed: list) -> Iterable[str]:
    """The best of each predictor, together as in the paper and for each side; then every step."""
    together = _predictions([*nominal, *perturbed])
    sides = {
        "": together,
        ", nominal": _predictions(nominal),
        ", perturbed": _predictions(perturbed),
    }
    for side, (known, note) in sides.items():
        yield _section(f"Failure prediction{side}", failure.summary(known), note)
    for name, prediction in together[0].items():
        yield _section(f"Failure prediction, {name}", failure.table(prediction))


def _predictions(rows: list) -> tuple[dict[str, failure.Prediction], str]:
    """Those that can be had, and what is to be said about them."""
    found = failure.predictions(rows)
    notes = ["Step, window and std are chosen on one half of the episodes, reported on the other."]
    notes += [f"{name}: {told}." for name, told in found.items() if isinstance(told, str)]
    known = {name: told for name, told in found.items() if not isinstance(told, str)}
    return known, " ".join(notes)


def _section(title: str, markdown: str, note: str = "") -> str:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines()]
    head, body = (lines[0], lines[2:]) if lines else ([], [])
    cells = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    table = f'<div class="table"><table><tr>{cells}</tr>{rows}</table></div>' if lines else ""
    return f"<h2>{html.escape(title)}</h2>{f'<p>{html.escape(note)}</p>' if note else ''}{table}"


def _text(cell: str) -> str:
    bold = cell.startswith("**")
    text = html.escape(cell.strip("*"))
    return f"<b>{text}</b>" if bold else text


def main(argv: Sequence[str] | None = None) -> int:
    """Write a report; exit code 2 when the runs can't be compared."""
    p = argparse.ArgumentParser(prog="python -m studio.report", description=__doc__)
    p.add_argument("runs", type=Path, nargs="+", help="folders of evaluation runs")
    p.add_argument("--score", choices=SCORES, default="", help="default: the first that there is")
    p.add_argument("--unit", choices=UNITS, default=MEAN)
    p.add_argument("--per-task", action="store_true", help="in the units of each task")
    p.add_argument("--k", type=float, default=DEFAULT_K)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(argv)
    try:
        selection = Selection(tuple(args.runs))
        text = report(Question(selection, args.score, args.unit, args.per_task, args.k))
        with whole_file(args.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
