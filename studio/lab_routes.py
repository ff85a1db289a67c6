"""The OOD lab over HTTP: `studio.lab`'s answers as JSON under /lab, and what can be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from models.checkpoint import Calibration, check_weights, read_calibration, write_calibration
from studio import evaluating, lab, sweeping
from studio.detection import DEFAULT_K
from studio.evaluate import calibrate
from studio.evaluating import KIND, settings
from studio.lab import Question, Selection
from studio.measures import MEAN, UNITS
from studio.report import report
from studio.scores import PAPER, SCORES
from studio.sweep import read_sweep
from studio.web import answered, from_own_page
from studio.workshop import Form, Live, Workshop
from studio.workspace import shown

PLANNED = {kind.KIND: kind.planned for kind in (evaluating, sweeping)}


class Asked(BaseModel):
    """What the page asks: runs, joined with commas; a filter; a score, its unit, a threshold."""

    runs: str = ""
    suite: str = ""
    task: str = ""
    difficulty: str = ""
    move: str = ""
    score: str = ""
    unit: str = MEAN
    scaled: bool = False
    k: float = Field(DEFAULT_K, allow_inf_nan=False)
    moved: bool = False  # k alone; the page has the rest


class Runs(BaseModel):
    """Runs by name, of which a calibration may or may not `replace` one that is there."""

    runs: list[str]
    replace: bool = False


class Planning(Live, Protocol):
    """The running studio, and `policies.describe` of what its next episode plans with."""

    @property
    def checkpoint(self) -> Mapping[str, Any]: ...


def router(workshop: Workshop, live: Planning) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/lab")

    def selected(asked: Asked) -> Selection:
        names = [name for name in asked.runs.split(",") if name]
        folders = tuple(workshop.jobs.get(name).folder for name in names)
        return Selection(folders, asked.suite, asked.task, asked.difficulty, asked.move)

    def question(asked: Asked) -> Question:
        return Question(selected(asked), asked.score, asked.unit, asked.scaled, asked.k)

    @routes.get("/options")
    def options() -> dict[str, Any]:
        scores = [
            {"name": s.name, "label": s.label, "about": s.description} for s in SCORES.values()
        ]
        return {"scores": scores, "units": list(UNITS), "paper": PAPER}

    @routes.get("/study")
    def study(asked: Annotated[Asked, Query()]) -> JSONResponse:
        tell = lab.moved if asked.moved else lab.answer
        return answered(lambda: tell(question(asked)))

    @routes.get("/tables")
    def tables(asked: Annotated[Asked, Query()]) -> JSONResponse:
        return answered(lambda: lab.tables(question(asked)))

    @routes.get("/plans.csv")
    def plans(asked: Annotated[Asked, Query()]) -> Response:
        return _file(lambda: question(asked), _plans, "plans.csv")

    @routes.get("/report.html")
    def page(asked: Annotated[Asked, Query()]) -> Response:
        return _file(lambda: question(asked), report, "report.html")

    @routes.get("/sweep")
    def sweep(run: str, score: str = "") -> JSONResponse:
        return answered(lambda: lab.sweep_answer(read_sweep(workshop.jobs.get(run).folder), score))

    @routes.post("/planned", dependencies=[Depends(from_own_page)])
    def planned(form: Form) -> dict[str, str]:
        try:
            _, argv = workshop.plan(form)
            return {"planned": PLANNED[form.kind](argv) if form.kind in PLANNED else ""}
        except ValueError:
            return {"planned": ""}  # the form's preview says why

    @routes.post("/calibrate", dependencies=[Depends(from_own_page)])
    def save(which: Runs) -> JSONResponse:
        def take() -> dict[str, Any]:
            jobs = [workshop.jobs.get(name) for name in which.runs]
            paths = {settings(job).get("checkpoint") for job in jobs if job.kind == KIND}
            if len(paths) != 1:
                raise ValueError("choose nominal runs of one checkpoint")
            if any(settings(job).get("chains", 1) != 1 for job in jobs):
                raise ValueError("a calibration is of plans of one chain, as Live makes them")
            nominal, _ = lab.sides(Selection(tuple(job.folder for job in jobs)).rows())
            path = workshop.workspace.checkpoint(paths.pop())
            found = calibrate(nominal)
            weights = nominal[0]["checkpoint"]
            check_weights(path, weights)
            told = {**_told(found), "checkpoint": shown(path)}
            before = read_calibration(path)
            if before and _told(before) != _told(found) and not which.replace:
                return {**told, "before": _told(before)}
            write_calibration(path, found)
            now = live.checkpoint
            if used := now["sha256"] == weights and not now["server"]:
                live.use_checkpoint(path)  # read anew, with its calibration
            return {**told, "used": used}

        return answered(take)

    return routes


def _told(calibration: Calibration) -> dict[str, float]:
    return {name: getattr(calibration, name) for name in ("mu", "sigma", "episodes")}


def _plans(question: Question) -> str:
    return lab.plans_csv(question.selection.rows())


def _file(asked: Callable[[], Question], make: Callable[[Question], str], name: str) -> Response:
    """What `make` writes, to be saved under `name` with checkpoint and date in it."""
    try:
        question = asked()
        text, rows = make(question), question.selection.rows()
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    stem, _, kind = name.rpartition(".")
    of = sorted({row["checkpoint"][:8] for row in rows})
    full = "-".join([stem, *of, f"{date.today()}.{kind}"])
    head = {"content-disposition": f'attachment; filename="{full}"'}
    return Response(text, media_type=f"text/{kind}", headers=head)
