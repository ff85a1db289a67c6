"""Recordings over HTTP, under /recordings: the library, its pictures, replays, energies, exports.

As in `studio.workshop`, what changes something is a POST from the studio's own page, and an answer
that is no success is {"error": one line}.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import h5py
from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.background import BackgroundTask

from models.checkpoint import WEIGHTS, sha256
from models.policy import Policy
from studio import lerobot, recording, rescore
from studio.darkroom import Darkroom
from studio.demos import IMAGE_KEYS
from studio.gather import gather, held_out
from studio.jpeg import encode_jpeg
from studio.library import Library
from studio.replay import ACTIONS, DEMO
from studio.studio import Studio
from studio.tape import THUMB, Tape
from studio.web import answered, from_own_page
from studio.workshop import Workshop
from studio.workspace import shown

FORMATS = ("libero", "lerobot")


class Names(BaseModel):
    """Recordings."""

    names: list[str]


class Mark(Names):
    """Recordings that are to be kept, or no longer."""

    kept: bool = True


class Export(Names):
    """Recordings as one of FORMATS."""

    format: str


class Span(BaseModel):
    """The steps `first` <= t < `last` of a recording."""

    name: str
    first: int
    last: int


class Which(BaseModel):
    """A recording: what to replay it from, or the checkpoint to score it with ("": Live's)."""

    name: str
    source: str = ACTIONS
    checkpoint: str = ""


class Page(BaseModel):
    """A page of Live; `every`: whether to record each of its episodes."""

    token: str
    every: bool = False


class LiveEpisode(BaseModel):
    """The episode that a page of Live shows, as its tape counts them."""

    token: str
    episode: int


class Archive:
    """The library as the pages see it."""

    def __init__(self, workshop: Workshop, studio: Studio) -> None:
        self.workspace, self.studio = workshop.workspace, studio
        self.library = Library(self.workspace.recordings)
        self.darkroom = Darkroom(self.library)
        self._gathering = threading.Lock()

    def tape(self, token: str) -> Tape:
        """The tape of a page's session. Raises ValueError when it has ended."""
        session = self.studio.sessions.get(token)
        if session is None:
            raise ValueError("this session has ended; reload the page")
        return session.tape

    def keep(self, names: list[str], kept: bool = True) -> None:
        """Mark as kept, and replay what has ended; or take the mark away. Raises ValueError."""
        for name in names:
            self.library.keep(name, kept)
            if kept and not recording.being_written(self.library.folder(name)):
                self.darkroom.develop(name)

    def throw_away(self, names: list[str]) -> None:
        """Move to the trash. Raises ValueError while one of them is worked on or recorded."""
        self._check_idle(names)
        self.library.throw_away(names)

    def _check_idle(self, names: list[str]) -> None:
        for name in names:
            if (work := self.darkroom.work().get(name)) and not work["problem"]:
                raise ValueError(f"{name}: its {work['what']} is under way; wait for it")

    def discard(self, which: LiveEpisode) -> str:
        """Throw away what a page records or has just recorded; returns its name."""
        tape = self.tape(which.token)
        name = tape.recorded(which.episode)
        self._check_idle([name])
        tape.let_go(name)
        self.library.throw_away([name])
        return name

    def score(self, which: Which) -> None:
        """Begin to score a recording with a checkpoint. Raises ValueError."""
        own = self.studio.sessions.policy
        if not which.checkpoint:
            return self.darkroom.energies(which.name, lambda: own)
        path = self.workspace.checkpoint(which.checkpoint)
        device, precision = str(own.device), own.precision
        self.darkroom.energies(which.name, lambda: Policy.from_pretrained(path, device, precision))

    def scores(self, which: Which) -> dict[str, Any]:
        """What a checkpoint's scoring found; {} before. Raises ValueError."""
        folder, own = self.library.folder(which.name), self.studio.sessions.policy
        weights = which.checkpoint and self.workspace.checkpoint(which.checkpoint) / WEIGHTS
        found = rescore.path(folder, sha256(weights) if weights else own.checkpoint.sha256)
        return json.loads(found.read_text()) if found.is_file() else {}

    def describe(self, name: str) -> dict[str, Any]:
        """What the player needs of a recording beside its row. Raises ValueError."""
        tape = recording.read(self.library.folder(name))
        return {
            "plans": [{"step": p["step"], "final": p["final"]} for p in tape.plans],
            "comparisons": [asdict(comparison) for comparison in tape.comparisons],
            "marks": [asdict(mark) for mark in tape.marks],
            "instructions": [[view.step, view.instruction] for view in tape.views],
        }

    def gather(self, names: list[str]) -> dict[str, Any]:
        """A new data folder of these recordings. Raises ValueError or OSError."""
        paths = (self.workspace.data / f"recordings-{n}" for n in itertools.count(1))
        with self._gathering:  # a name is free until its folder is whole
            out = next(path for path in paths if not path.exists())
            made = gather(self.library, names, out)
        counts = {"demonstrations": made, "held_out": held_out(self.library, names)}
        return {"data": shown(out), **counts}


def router(workshop: Workshop, studio: Studio) -> APIRouter:
    """The routes."""
    routes, archive = APIRouter(prefix="/recordings"), Archive(workshop, studio)
    _reading(routes, archive)
    _deciding(routes, archive)
    _live(routes, archive)
    return routes


def _reading(routes: APIRouter, archive: Archive) -> None:
    library, darkroom = archive.library, archive.darkroom

    @routes.get("")
    def everything() -> JSONResponse:
        rows = {"recordings": library.all(), "trash": library.all(trash=True)}
        checkpoints = archive.workspace.checkpoints()
        return JSONResponse({**rows, "work": darkroom.work(), "checkpoints": checkpoints})

    @routes.get("/tape")
    def tape(name: str) -> JSONResponse:
        return answered(lambda: archive.describe(name))

    @routes.get("/energies")
    def energies(name: str, checkpoint: str = "") -> JSONResponse:
        which = Which(name=name, checkpoint=checkpoint)
        return answered(lambda: archive.scores(which))

    @routes.get("/thumb.jpg")
    def thumb(name: str, trash: bool = False) -> Response:
        return _jpeg(lambda: (library.folder(name, trash) / THUMB).read_bytes())

    @routes.get("/picture.jpg")
    def picture(name: str, camera: str, step: int) -> Response:
        return _jpeg(lambda: _picture(library.folder(name), camera, step))


def _deciding(routes: APIRouter, archive: Archive) -> None:
    library, darkroom, own = archive.library, archive.darkroom, [Depends(from_own_page)]

    @routes.post("/keep", dependencies=own)
    def keep(which: Mark) -> JSONResponse:
        return answered(lambda: archive.keep(which.names, which.kept) or {})

    @routes.post("/develop", dependencies=own)
    def develop(which: Names) -> JSONResponse:
        return answered(lambda: [darkroom.develop(name) for name in which.names] and {})

    @routes.post("/trim", dependencies=own)
    def trim(span: Span) -> JSONResponse:
        return answered(lambda: library.trim(span.name, span.first, span.last) or {})

    @routes.post("/discard", dependencies=own)
    def discard(which: Names) -> JSONResponse:
        return answered(lambda: archive.throw_away(which.names) or {})

    @routes.post("/restore", dependencies=own)
    def restore(which: Names) -> JSONResponse:
        return answered(lambda: library.take_back(which.names) or {})

    @routes.post("/delete", dependencies=own)
    def delete(which: Names) -> JSONResponse:
        return answered(lambda: library.delete(which.names) or {})

    @routes.post("/replay", dependencies=own)
    def replay(which: Which) -> JSONResponse:
        return answered(lambda: darkroom.replay(which.name, which.source) or {})

    @routes.post("/score", dependencies=own)
    def score(which: Which) -> JSONResponse:
        return answered(lambda: archive.score(which) or {})

    @routes.post("/export", dependencies=own)  # names of hundreds are too long for an address
    def export(which: Export) -> Response:
        return _export(library, which.names, which.format)

    @routes.post("/gather", dependencies=own)
    def collect(which: Names) -> JSONResponse:
        return answered(lambda: archive.gather(which.names))


def _live(routes: APIRouter, archive: Archive) -> None:
    own = [Depends(from_own_page)]

    @routes.get("/live")
    def status(token: str) -> JSONResponse:
        session = archive.studio.sessions.get(token)  # none yet for a page that queues
        return JSONResponse(session.tape.status() if session else {})

    @routes.post("/live", dependencies=own)
    def every(page: Page) -> JSONResponse:
        def switch() -> Mapping[str, Any]:
            tape = archive.tape(page.token)
            tape.record_every(page.every)
            return tape.status()

        return answered(switch)

    @routes.post("/live/keep", dependencies=own)
    def keep(which: LiveEpisode) -> JSONResponse:
        def save() -> Mapping[str, Any]:
            name = archive.tape(which.token).save(which.episode)
            archive.keep([name])
            return {"id": name}

        return answered(save)

    @routes.post("/live/discard", dependencies=own)
    def discard(which: LiveEpisode) -> JSONResponse:
        return answered(lambda: {"id": archive.discard(which)})


def _jpeg(read: Callable[[], bytes]) -> Response:
    """A picture that the browser may keep: its address changes when it does."""
    try:
        content = read()
    except (ValueError, KeyError, IndexError, OSError) as error:
        return JSONResponse({"error": f"there is no such picture ({error})"}, 404)
    caching = {"cache-control": "private, max-age=86400"}
    return Response(content, media_type="image/jpeg", headers=caching)


def _picture(folder: Path, camera: str, step: int) -> bytes:
    with h5py.File(folder / DEMO, "r") as file:
        image = file[f"data/demo_0/obs/{IMAGE_KEYS[camera]}"][step]
    return encode_jpeg(image[::-1])


def _export(library: Library, names: list[str], format: str) -> Response:
    """A ZIP archive of LIBERO's HDF5 files, or of a LeRobot dataset."""
    if format not in FORMATS:
        return JSONResponse({"error": f"export as {' or '.join(FORMATS)}, not {format!r}"}, 400)
    room = tempfile.TemporaryDirectory(prefix="eb-vla-recordings-")
    try:
        folder = Path(room.name) / "libero"
        gather(library, names, folder)
        if format == "lerobot":
            lerobot.export(folder, folder := Path(room.name) / "lerobot", drivers=True)
        archive = _zip(folder, Path(room.name) / f"recordings-{format}.zip")
    except (ValueError, KeyError, OSError) as error:  # KeyError: of a damaged demonstration
        room.cleanup()
        full = isinstance(error, OSError)
        return JSONResponse({"error": str(error)}, 507 if full else 400)
    name = _file_name(library, names, format)
    return FileResponse(archive, filename=name, background=BackgroundTask(room.cleanup))


def _file_name(library: Library, names: list[str], format: str) -> str:
    """Of an archive: its format, the checkpoint where there was one alone, and today."""
    drivers = {row.get("checkpoint") for row in library.all() if row["id"] in names}
    parts = ("recordings", format, *(drivers if len(drivers) == 1 else ()), date.today())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(str(p) for p in parts if p)) + ".zip"


def _zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:  # pictures are compressed already
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder.parent))
    return path
