"""Runs of every kind (train, collect, evaluate, sweep) over HTTP: JSON routes under /jobs.

Everything that changes something is a POST from the studio's own page; an answer that is no
success is {"error": one line}.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, FiniteFloat

from studio import collecting, datasets, evaluating, sweeping, training
from studio.jobs import METRICS, Job, Jobs, JobState, read_rows
from studio.server import same_origin
from studio.workspace import Workspace, shown

KINDS: dict[str, ModuleType] = {
    kind.KIND: kind for kind in (training, collecting, evaluating, sweeping)
}
LOG_LINES = 300


class Form(BaseModel):
    """A filled form of one kind of job."""

    kind: str
    values: dict[str, bool | int | FiniteFloat | str | None] = Field(max_length=100)


class Which(BaseModel):
    """A job, and one of its checkpoints."""

    name: str
    checkpoint: str = "best"


class Workshop:
    """Jobs as the pages see them."""

    def __init__(self, runs: Path, shipped: Iterable[Path] = ()) -> None:
        """`runs`: the folder of all runs (`--workspace`); `shipped`: finished ones beside them."""
        self.workspace = Workspace(runs)
        self.jobs = Jobs(self.workspace.runs, shipped=shipped)

    def plan(self, form: Form) -> tuple[str, list[str]]:
        """Name and argv that `launch` will use. Raises ValueError when the form is no good."""
        if form.kind not in KINDS:
            raise ValueError(f"{form.kind}: no kind of job")
        name = str(form.values.get("name") or "").strip()
        name = name or self._free_name(KINDS[form.kind].suggestion(form.values))
        if self.jobs.folder(name).exists():
            raise ValueError(f"{name}: there is a run of this name; choose another")
        return name, KINDS[form.kind].command(form.values, self.workspace, name)

    def launch(self, form: Form) -> Job:
        """Start the job of a form. Raises ValueError."""
        name, argv = self.plan(form)
        return self.jobs.launch(form.kind, name, argv, form.values)

    def resume(self, name: str) -> Job:
        """Go on with a job that has ended before its time. Raises ValueError."""
        job = self.jobs.get(name)
        if not job.resumable:
            raise ValueError(f"{name}: {job.state}, there is nothing to resume")
        return self.jobs.resume(name, KINDS[job.kind].resume_flags(job))

    def checkpoint(self, name: str, which: str) -> Path:
        """A run's checkpoint folder. Raises ValueError when it has none of this name."""
        job = self.jobs.get(name)
        if which not in KINDS[job.kind].checkpoints(job):
            raise ValueError(f"{name}: there is no checkpoint '{which}' yet")
        return job.folder / which

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as JSON."""
        kind = KINDS[job.kind]
        return {
            "name": job.name,
            "folder": shown(job.folder),
            "kind": job.kind,
            "state": job.state,
            "stopping": job.stopping,
            "resumable": job.resumable,
            "started": job.started,
            "ended": job.ended,
            "problem": job.problem,
            "command": command_line(job.argv),
            "says": "".join(job.log(1)) if job.state is JobState.RUNNING else "",
            "values": dict(job.values) or kind.settings(job),
            "summary": kind.summary(job),
            "checkpoints": kind.checkpoints(job),
        }

    def _free_name(self, stem: str) -> str:
        taken = {job.name for job in self.jobs.all()}
        numbers = range(1, len(taken) + 2)
        return next(f"{stem}-{i}" for i in numbers if f"{stem}-{i}" not in taken)


def command_line(argv: tuple[str, ...] | list[str]) -> str:
    """A command as one would type it in the repository's folder."""
    if not argv:
        return ""
    return shlex.join([shown(Path(argv[0])) if argv[0] == sys.executable else argv[0], *argv[1:]])


class Live(Protocol):
    """What the running studio offers to a finished training."""

    def use_checkpoint(self, path: Path) -> None: ...


def from_own_page(request: Request) -> None:
    """A page of another site must not start jobs here."""
    if not same_origin(request):
        raise HTTPException(403, "this page comes from another site")


def answered(action: Callable[[], Mapping[str, Any]]) -> JSONResponse:
    """What `action` returns, or {"error": ...} for what it raises on bad input or a full disk."""
    try:
        return JSONResponse(action())
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    except OSError as error:
        text = f"{error.strerror}: {error.filename}" if error.errno else str(error)  # h5py's
        return JSONResponse({"error": text}, 507)


def router(workshop: Workshop, live: Live) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/jobs")
    own = [Depends(from_own_page)]

    @routes.get("")
    def everything() -> JSONResponse:
        jobs = [workshop.describe(job) for job in workshop.jobs.all() if job.kind in KINDS]
        return JSONResponse({"jobs": jobs})

    @routes.get("/choices")
    def choices() -> JSONResponse:
        folders = workshop.workspace.data_folders()
        data = [{"path": f.path, "files": f.files} for f in folders]
        return JSONResponse({"data": data, "checkpoints": workshop.workspace.checkpoints()})

    @routes.get("/metrics")
    def metrics(name: str, since: int = 0) -> JSONResponse:
        def read() -> dict[str, Any]:
            rows, after = read_rows(workshop.jobs.folder(name) / METRICS, since)
            return {"rows": rows, "since": after}

        return answered(read)

    @routes.get("/log")
    def log(name: str) -> JSONResponse:
        return answered(lambda: {"lines": workshop.jobs.get(name).log(LOG_LINES)})

    @routes.get("/contents")
    def contents(folder: str) -> JSONResponse:
        return answered(lambda: {"tasks": datasets.contents(workshop.workspace.inside(folder))})

    @routes.get("/strip.jpg")
    def strip(folder: str, file: str, instruction: str, demo: int) -> Response:
        try:
            jpeg = datasets.strip(workshop.workspace.inside(folder), file, instruction, demo)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(jpeg, media_type="image/jpeg")

    @routes.post("/preview", dependencies=own)
    def preview(form: Form) -> dict[str, str]:
        try:
            name, argv = workshop.plan(form)
        except ValueError as error:
            return {"error": str(error)}  # a form half filled in is no fault
        return {"name": name, "command": command_line(argv)}

    @routes.post("/launch", dependencies=own)
    def launch(form: Form) -> JSONResponse:
        return answered(lambda: workshop.describe(workshop.launch(form)))

    @routes.post("/resume", dependencies=own)
    def resume(which: Which) -> JSONResponse:
        return answered(lambda: workshop.describe(workshop.resume(which.name)))

    @routes.post("/stop", dependencies=own)
    def stop(which: Which) -> JSONResponse:
        return answered(lambda: workshop.jobs.stop(which.name) or {})

    @routes.post("/use", dependencies=own)
    def use(which: Which) -> JSONResponse:
        def take() -> dict[str, str]:
            path = workshop.checkpoint(which.name, which.checkpoint)
            live.use_checkpoint(path)
            return {"checkpoint": shown(path)}

        return answered(take)

    return routes
