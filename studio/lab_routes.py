"""The OOD lab over HTTP: `studio.lab`'s answers as JSON under /lab, and what can be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from models.checkpoint import Calibration, check_weights, read_calibration, write_calibration
from studio import lab
from studio.detection import DEFAULT_K
from studio.evaluate import calibrate
from studio.evaluating import KIND, settings
from studio.lab import Question, Selection
from studio.measures import MEAN, UNITS
from studio.report import report
from studio.scores import PAPER, SCORES
from studio.sweep import read_sweep
from studio.workshop import Live, Workshop, answered, from_own_page
from studio.workspace import shown


class Asked(BaseModel):
    """What the page asks: runs, joined with commas; a filter; a score, its unit, a threshold."""

    runs: str = ""
    suite: str = ""
    task: str = ""
    difficulty: str = ""
    move: str = ""
    score: str = PAPER
    unit: str = MEAN
    scaled: bool = False
    k: float = Field(DEFAULT_K, allow_inf_nan=False)


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
        return answered(lambda: lab.answer(question(asked)))

    @routes.get("/tables")
    def tables(asked: Annotated[Asked, Query()]) -> JSONResponse:
        return answered(lambda: lab.tables(question(asked)))

    @routes.get("/episodes.csv")
    def episodes(asked: Annotated[Asked, Query()]) -> Response:
        return _file(lambda: lab.episodes_csv(selected(asked).rows()), "text/csv", "episodes.csv")

    @routes.get("/report.html")
    def page(asked: Annotated[Asked, Query()]) -> Response:
        return _file(lambda: report(question(asked)), "text/html", "report.html")

    @routes.get("/sweep")
    def sweep(run: str, score: str = PAPER) -> JSONResponse:
        return answered(lambda: lab.sweep_answer(read_sweep(workshop.jobs.get(run).folder), score))

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


def _file(make: Callable[[], str], kind: str, name: str) -> Response:
    try:
        text = make()
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    head = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=kind, headers=head)
