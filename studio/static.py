"""The page's own scripts and styles, under an address that changes with their content.

Scripts import one another relatively, so one version in the path covers them all: after an upgrade
no browser runs an old script beside a new one, and until then none is asked for twice.
"""

from __future__ import annotations

import functools
import hashlib

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, JSONResponse

from studio.places import ASSETS

FOLDER = ASSETS / "live"
PREFIX = "live/static"
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter()


@functools.cache
def version() -> str:
    """Hash of all files' names and contents, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def address(name: str) -> str:
    """Where the page finds a file, relative to itself."""
    return f"{PREFIX}/{version()}/{name}"


@router.get(f"/{PREFIX}/{{asked}}/{{name}}")
def static(asked: str, name: str) -> Response:
    """A file; to be kept for ever if it is the version asked for."""
    if name not in {path.name for path in FOLDER.iterdir()}:
        return JSONResponse({"error": f"no file {name!r}"}, 404)
    caching = FOREVER if asked == version() else "no-store"
    return FileResponse(FOLDER / name, headers={"Cache-Control": caching})
