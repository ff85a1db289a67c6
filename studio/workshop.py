"""Runs of every kind (train, collect, evaluate, sweep) over HTTP: JSON routes under /jobs.

Everything that changes something is a POST from the studio's own page; an answer that is no
success is {"error": one line}.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, FiniteFloat

from studio import collecting, datasets, evaluating, sweeping, training
from studio.jobs import METRICS, RESUMABLE, Job, Jobs, JobState, read_rows
from studio.places import ROOT
from studio.remembered import Remembered, stamp
from studio.web import answered, from_own_page
from studio.workspace import Workspace, shown

KINDS: dict[str, ModuleType] = {
    kind.KIND: kind for kind in (training, collecting, evaluating, sweeping)
}
LOG_LINES = 300
ENDED = (JobState.FINISHED, *RESUMABLE)
UNREADABLE = (OSError, ValueError, TypeError, KeyError)  # of files that are damaged or forbidden
NOTHING = {"problem": "", "says": "", "values": {}, "summary": {}, "checkpoints": []}


class Form(BaseModel):
    """A filled form of one kind of job."""

    kind: str
    values: dict[str, bool | int | FiniteFloat | str | None] = Field(max_length=100)


class Which(BaseModel):
    """A job."""

    name: str


class Choice(BaseModel):
    """A checkpoint folder, as shown."""

    path: str


class Workshop:
    """Jobs as the pages see them."""

    def __init__(self, runs: Path, shipped: Iterable[Path] = ()) -> None:
        """`runs`: the folder of all runs (`--workspace`); `shipped`: finished ones beside them."""
        self.workspace = Workspace(runs)
        self.jobs = Jobs(self.workspace.runs, shipped=shipped)
        self._ended: Remembered[dict[str, Any]] = Remembered()  # of jobs that write no more

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

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as JSON; of one whose files can't be read, why in place of what they say."""
        try:
            if job.state in ENDED:
                written = sorted(file for file in job.folder.iterdir() if file.is_file())
                stands = (job.state, job.started, stamp(*written))
                told = self._ended.get(job.folder, stands, lambda: self._told(job))
            else:
                told = self._told(job)
        except UNREADABLE as error:
            told = NOTHING | {"problem": f"what it has written can't be read: {error}"}
        return {
            "name": job.name,
            "folder": shown(job.folder),
            "kind": job.kind,
            "state": job.state,
            "stopping": job.stopping,
            "resumable": job.resumable,
            "started": job.started,
            "ended": job.ended,
            "elapsed_s": job.elapsed_s,
            "command": command_line([*job.argv, *job.flags]),
            **told,
        }

    def _told(self, job: Job) -> dict[str, Any]:
        """What its files say."""
        kind = KINDS[job.kind]
        return {
            "problem": job.problem,
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

    first: dict[str, str] | None  # `path`, `name`, `sha256` of the checkpoint that it began with

    def use_checkpoint(self, path: Path) -> None: ...


def router(workshop: Workshop, live: Live) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/jobs")
    own = [Depends(from_own_page)]

    @routes.get("")
    def everything() -> JSONResponse:
        def listed() -> dict[str, Any]:
            found = workshop.jobs.all()
            return {"jobs": [workshop.describe(job) for job in found if job.kind in KINDS]}

        return answered(listed)

    @routes.get("/choices")
    def choices() -> JSONResponse:
        folders = workshop.workspace.data_folders()
        data = [{"path": f.path, "files": f.files} for f in folders]
        checkpoints = workshop.workspace.checkpoints()
        return JSONResponse({"data": data, "checkpoints": checkpoints, "first": live.first})

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
    def use(choice: Choice) -> JSONResponse:
        def take() -> dict[str, str]:
            first = live.first and live.first["path"]
            again = choice.path == first  # which may lie outside the workspace
            path = ROOT / first if again else workshop.workspace.checkpoint(choice.path)
            live.use_checkpoint(path)
            return {"checkpoint": choice.path}

        return answered(take)

    return routes
