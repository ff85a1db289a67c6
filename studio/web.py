"""What the studio's routes have in common: whose page may ask, and how a failure is answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection


def same_origin(connection: HTTPConnection) -> bool:
    """A browser page of another site must not drive this studio.

    A page in a frame counts as the site that it came from, whoever frames it: a Hugging Face Space
    works, whose proxy may name its own host only in a header or in the environment. A page can't
    write Origin and Host, and X-Forwarded-Host only if a preflight allows it; none does here.
    """
    origin = connection.headers.get("origin")
    if origin is None:  # no browser
        return True
    forwarded = connection.headers.get("x-forwarded-host", "").split(",")
    hosts = {connection.headers.get("host", ""), os.environ.get("SPACE_HOST", ""), *forwarded}
    return urlsplit(origin).netloc.lower() in {host.strip().lower() for host in hosts} - {""}


def from_own_page(request: Request) -> None:
    """A page of another site must not change anything here."""
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
