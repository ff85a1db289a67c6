"""The web server around the page: the live WebSocket and the downloads of an episode.

Each socket keeps cursors into its session's feed and sends what is new; of pictures it sends only
the newest, and at most `CREDIT` that the page has not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse
from starlette.background import BackgroundTask

from studio import static, wire
from studio.detection import DEFAULT_K
from studio.events import Command, Drive, Mark, SetAssists, SetDriver
from studio.feed import Snapshot
from studio.movie import write_mp4
from studio.policies import calibration, describe, threshold
from studio.recorder import NothingRecorded, write_zip
from studio.session import Session
from studio.studio import Studio
from studio.web import same_origin

log = logging.getLogger(__name__)

CREDIT = 2  # pictures in flight
QUEUE_POLL_S = 1.0
IDLE_CODE = 4408  # the session gave its simulator back; the page asks before it takes a new one
MAX_MESSAGE = 64 * 1024  # bytes from the page
MAX_BODY = 2**20  # bytes of a request
MOST_ANSWERS = 100  # that wait for a page to read
MOST_WORDS = 300  # letters, of what it sent, in an answer and in the log
TOKEN = re.compile(r"[0-9a-f]{32}")
UNSENT = -1  # episode of a page that has been sent nothing yet
HELD = (Drive, SetAssists)  # what takes the wheel while a person drives


def create_app(studio: Studio) -> FastAPI:
    """The FastAPI application that the page is mounted on."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        studio.close()

    app = FastAPI(
        title="EB-VLA Studio", lifespan=lifespan, docs_url=None, redoc_url=None,
        max_body_size=MAX_BODY,
    )  # fmt: skip
    app.include_router(static.router)

    @app.websocket("/live/ws")
    async def live(socket: WebSocket, token: str = "") -> None:
        await serve_page(studio, socket, token)

    @app.get("/live/export/episode.{kind}")
    def export(kind: str, token: str = "", k: float = DEFAULT_K):
        return export_episode(studio, kind, token, k)

    @app.options("/{path:path}")
    def preflight(path: str) -> JSONResponse:
        """No other site's page may ask with headers of its own: see `same_origin`."""
        return JSONResponse({"error": "this page comes from another site"}, 403)

    @app.get("/healthz")
    def health() -> dict[str, object]:
        return {"status": "ok", "sessions": len(studio.sessions)}

    return app


async def serve_page(studio: Studio, socket: WebSocket, token: str) -> None:
    """One page's socket from hello to goodbye."""
    await socket.accept()
    if not same_origin(socket):
        await socket.close(4403, "this page comes from another site")
        return
    if not TOKEN.fullmatch(token):
        await socket.close(4400, "bad token")
        return
    session: Session | None = None
    try:
        session = await _wait_for_place(studio, socket, token)
        await PageLink(studio, session, socket).serve()
    except (WebSocketDisconnect, RuntimeError) as gone:
        log.debug("page %s left: %s", token[:6], gone)
    finally:
        if session:
            studio.sessions.detach(session)
        else:
            studio.sessions.leave_queue(token)


async def _wait_for_place(studio: Studio, socket: WebSocket, token: str) -> Session:
    """Attach to the token's session, telling the page its place in the queue meanwhile."""
    while True:
        session = await asyncio.to_thread(studio.sessions.attach, token)
        if isinstance(session, Session):
            return session
        message = {"type": "queue", "position": session, "cap": studio.sessions.options.cap}
        await socket.send_text(json.dumps(message))
        with contextlib.suppress(TimeoutError):  # also notices a page that leaves
            await asyncio.wait_for(socket.receive_text(), QUEUE_POLL_S)


@dataclass
class Cursors:
    """What this page has been sent of the feed: how many plans and comparisons, which marks …"""

    episode: int = UNSENT
    plans: int = 0
    marks: tuple[Mark, ...] = ()
    comparisons: int = 0
    frame: int = 0
    state: object = None
    wheel: object = None

    def new_marks(self, marks: tuple[Mark, ...]) -> int:
        """Index of the first mark to send; the last one sent may have been replaced since."""
        sent = len(self.marks)
        return sent - 1 if sent and marks[sent - 1] is not self.marks[-1] else sent


class PageLink:
    """The two directions of one page's socket."""

    def __init__(self, studio: Studio, session: Session, socket: WebSocket) -> None:
        self._studio, self._session, self._socket = studio, session, socket
        self._policy = session.policy.current  # that the page knows of
        self._cursors = Cursors()
        self._page = session.wheel.join()
        self._in_flight = 0
        self._policy_view = False
        self._news = asyncio.Event()
        self._answers: asyncio.Queue[dict] = asyncio.Queue()  # as many as `_receive` lets wait
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Until the page goes away or its session ends."""
        unlisten = self._session.feed.listen(self._wake)
        try:
            async with anyio.create_task_group() as tasks:
                for direction in (self._send, self._receive):
                    tasks.start_soon(self._until_gone, direction, tasks.cancel_scope)
        finally:
            unlisten()
            self._session.wheel.leave(self._page)

    async def _until_gone(
        self, direction: Callable[[], Awaitable[None]], scope: anyio.CancelScope
    ) -> None:
        """One direction; its end is the other's, too."""
        try:
            await direction()
        except (WebSocketDisconnect, RuntimeError) as gone:
            log.debug("page %s left: %s", self._session.token[:6], gone)
        finally:
            scope.cancel()

    def _wake(self) -> None:
        """Called on the loop's thread."""
        with contextlib.suppress(RuntimeError):  # the server is shutting down
            self._loop.call_soon_threadsafe(self._news.set)

    # -- page -> studio -----------------------------------------------------------------------
    async def _receive(self) -> None:
        while True:
            if self._answers.qsize() > MOST_ANSWERS:
                raise RuntimeError("it asks and does not read the answers")
            message: dict = {}
            try:
                message = _parse(await self._socket.receive_text())
                self._handle(message)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                known = isinstance(error, ValueError)
                text = _short(str(error)) if known else "this is no request"
                log.info("page %s: %s: %s", self._session.token[:6], type(error).__name__, text)
                kind = message.get("type")
                refused = _short(kind) if isinstance(kind, str) else None
                self._answer({"type": "error", "message": text, "refused": refused})

    def _handle(self, message: dict) -> None:
        if message.get("type") == "ack":
            self._in_flight = max(0, self._in_flight - 1)
            self._news.set()
        elif message.get("type") == "view":
            self._policy_view = bool(message.get("policy"))
        elif message.get("type") == "wheel":
            wish = self._session.wheel.ask if message.get("ask") else self._session.wheel.grant
            wish(self._page, time.monotonic())
        elif message.get("type") in wire.ANALYSES:
            self._analyse(message)
        elif command := wire.parse_command(message):
            self._steer(command)
        else:
            raise wire.BadMessage(f"unknown request {message.get('type')!r}")

    def _analyse(self, message: dict) -> None:
        """Pass a question about a plan on; what can't be asked is answered where it was asked."""
        try:
            request = wire.parse_analysis(message)
        except ValueError as error:
            head = {name: message.get(name) for name in ("type", "stamp", "plan")}
            self._answer({**head, "error": str(error)})
            return
        self._session.analyse(
            request, lambda a: self._loop.call_soon_threadsafe(self._answer, a), self._page
        )

    def _steer(self, command: Command) -> None:
        """Pass a command on. Raises ValueError while another page of this session drives."""
        session, wheel = self._session, self._session.wheel
        by_hand = session.driver != "policy"  # a stick that is still held afterwards takes nothing
        if isinstance(command, SetDriver) or (by_hand and isinstance(command, HELD)):
            free = wheel.take(self._page, time.monotonic())
        else:
            free = wheel.state.driver in (None, self._page)
        if not free:
            raise ValueError("another tab drives this arm; ask for the wheel first")
        self._studio.check(command)
        session.submit(command)
        if isinstance(command, SetDriver):
            session.driver = command.driver
            if command.driver == "policy":
                wheel.let_go()

    def _answer(self, message: dict) -> None:
        self._answers.put_nowait(message)
        self._news.set()

    # -- studio -> page -----------------------------------------------------------------------
    async def _send(self) -> None:
        await self._hello()
        while True:
            await self._news.wait()
            self._news.clear()
            while not self._answers.empty():
                await self._text(self._answers.get_nowait())
            snapshot = self._session.feed.snapshot()
            if snapshot.closed:
                await self._socket.close(IDLE_CODE, "closed after a long time without a request")
                return
            if self._policy is not self._session.policy.current:
                await self._hello()  # the episode that has begun is another checkpoint's
                continue
            await self._send_wheel()
            await self._send_history(snapshot)
            await self._send_state(snapshot)
            await self._send_frame(snapshot)

    async def _hello(self) -> None:
        self._policy = self._session.policy.current
        snapshot = self._session.feed.snapshot()
        if self._cursors.episode not in (UNSENT, snapshot.episode):
            await self._text({"type": "episode", "episode": snapshot.episode})
        plans = [wire.plan_message(record) for record in snapshot.plans]
        await self._text(
            {
                "type": "hello",
                "session": self._session.name,
                "checkpoint": describe(self._policy),
                "calibration": calibration(self._policy),
                "versions": self._studio.versions,
                "state": wire.state_message(snapshot.state),
                "plans": plans,
                "marks": [asdict(mark) for mark in snapshot.marks],
                "comparisons": [asdict(c) for c in snapshot.comparisons],
            }
        )
        known = (_planned(snapshot), snapshot.marks, snapshot.compared, 0, snapshot.state)
        self._cursors = Cursors(snapshot.episode, *known)
        self._news.set()

    async def _send_history(self, snapshot: Snapshot) -> None:
        cursors = self._cursors
        if snapshot.episode != cursors.episode:
            cursors.episode, cursors.plans, cursors.marks = snapshot.episode, 0, ()
            cursors.comparisons = 0
            await self._text({"type": "episode", "episode": snapshot.episode})
        for record in snapshot.plans:
            if record.index >= cursors.plans:
                await self._text({"type": "plan", **wire.plan_message(record)})
        for mark in snapshot.marks[cursors.new_marks(snapshot.marks) :]:
            await self._text({"type": "mark", **asdict(mark)})
        news = min(snapshot.compared - cursors.comparisons, len(snapshot.comparisons))
        for comparison in snapshot.comparisons[len(snapshot.comparisons) - news :]:
            await self._text({"type": "comparison", **asdict(comparison)})
        cursors.plans, cursors.marks = _planned(snapshot), snapshot.marks
        cursors.comparisons = snapshot.compared

    async def _send_state(self, snapshot: Snapshot) -> None:
        if snapshot.state is not self._cursors.state:
            self._cursors.state = snapshot.state
            await self._text({"type": "state", **wire.state_message(snapshot.state)})

    async def _send_wheel(self) -> None:
        if (state := self._session.wheel.state) is not self._cursors.wheel:
            self._cursors.wheel = state
            await self._text({"type": "wheel", **wire.wheel_message(state, self._page)})

    async def _send_frame(self, snapshot: Snapshot) -> None:
        if snapshot.frame is None or snapshot.frame_number == self._cursors.frame:
            return
        if self._in_flight >= CREDIT:
            return
        self._cursors.frame = snapshot.frame_number
        self._in_flight += 1
        seen = None
        if self._policy_view and snapshot.plans:
            seen = dict(snapshot.plans[-1].plan.observation.images)
        await self._socket.send_bytes(wire.frame_message(snapshot.frame, snapshot.episode, seen))

    async def _text(self, message: dict) -> None:
        await self._socket.send_text(json.dumps(message))


def _parse(text: str) -> dict:
    """A page's message. Raises ValueError or RecursionError if it is none."""
    if len(text) > MAX_MESSAGE:
        raise wire.BadMessage("the message is too long")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise wire.BadMessage("a JSON object is needed")
    return message


def _short(text: str) -> str:
    """What a page sent is told back to it, but not at length."""
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}…"


def _planned(snapshot: Snapshot) -> int:
    """How many plans the episode has had."""
    return snapshot.plans[-1].index + 1 if snapshot.plans else 0


# -- downloads ----------------------------------------------------------------------------------
def export_episode(
    studio: Studio, kind: str, token: str, k: float = DEFAULT_K
) -> FileResponse | JSONResponse:
    """The session's newest episode as an attachment; 404 or 409 with {"error": ...} otherwise.

    A film judges by k·σ_v above μ_v, as its page does.
    """
    writers: dict[str, Callable] = {
        "zip": write_zip,
        "mp4": lambda episode, path: write_mp4(
            episode, path, threshold(session.policy.current, k if math.isfinite(k) else DEFAULT_K)
        ),
    }
    session = studio.sessions.get(token) if TOKEN.fullmatch(token) else None
    if session is None or kind not in writers:
        return JSONResponse({"error": "this session has ended; reload the page"}, 404)
    try:
        episode = session.recorder.episode()
        folder = tempfile.TemporaryDirectory(prefix="eb-vla-export-")
        path = writers[kind](episode, Path(folder.name) / f"episode.{kind}")
    except NothingRecorded as nothing:
        return JSONResponse({"error": str(nothing)}, 409)
    except OSError as error:
        return JSONResponse({"error": f"the file could not be written: {error}"}, 507)
    scene = episode.begin.scene
    name = f"{scene.suite}-{scene.task:02d}-init{scene.init:02d}-seed{scene.seed}.{kind}"
    return FileResponse(path, filename=name, background=BackgroundTask(folder.cleanup))
