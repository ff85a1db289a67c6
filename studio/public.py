"""A studio that is open to everyone: visitors watch, drive and measure; the machine is its owner's.

All pages of a studio share its jobs, checkpoint, calibrations and recordings. Who opens it to
strangers, as a public Hugging Face Space does, keeps those to the command line.
"""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OWNERS = (
    "This studio is open to everyone: its jobs, calibrations and recordings are its owner's. "
    "Run one of your own (the README has the two commands); its owner starts it with --no-public."
)
SHARED = ("/jobs/", "/lab/")  # where a POST changes what all visitors have
RECORDINGS = "/recordings"  # other visitors' ones are not even shown
ANYONES = (("POST", "/jobs/preview"), ("POST", "/lab/planned"), ("GET", "/recordings/live"))


class ForVisitors:
    """Refuses what is the owner's with status 403 and one line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        answer: ASGIApp = self._app
        if scope["type"] == "http" and is_owners(scope["method"], scope["path"]):
            answer = JSONResponse({"error": OWNERS}, 403)
        await answer(scope, receive, send)


def is_owners(method: str, path: str) -> bool:
    """A request that is not for visitors."""
    if (method, path) in ANYONES:
        return False
    return path.startswith(RECORDINGS) or (method == "POST" and path.startswith(SHARED))
