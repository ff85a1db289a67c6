"""A reverse proxy under a sub-path, as nginx would be one: `/studio/x` here is `/x` there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PREFIX = "/studio"
FRAME = '<!doctype html><iframe src="{source}" style="width:1300px;height:850px"></iframe>'
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


def application(upstream: str) -> Starlette:
    """The proxy of `upstream`, http://host:port without a path."""

    @asynccontextmanager
    async def lifespan(app: Starlette):
        async with httpx.AsyncClient(base_url=upstream, timeout=None) as app.state.client:
            yield

    async def pages(request: Request) -> StreamingResponse:
        path = "/" + request.path_params["path"]
        headers = [(k, v) for k, v in request.headers.items() if k not in HOP_BY_HOP]
        headers.append(("x-forwarded-host", request.headers["host"]))
        client: httpx.AsyncClient = request.app.state.client
        url = httpx.URL(path, query=request.url.query.encode())
        call = client.build_request(request.method, url, headers=headers, content=request.stream())
        answer = await client.send(call, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k not in HOP_BY_HOP}
        body = answer.aiter_raw()
        return StreamingResponse(body, answer.status_code, kept, background=_closing(answer))

    async def sockets(page: WebSocket) -> None:
        path = f"/{page.path_params['path']}?{page.url.query}"
        headers = {"x-forwarded-host": page.headers["host"]}
        url = upstream.replace("http:", "ws:") + path
        origin = page.headers.get("origin")
        async with connect(url, origin=origin, additional_headers=headers) as there:
            await page.accept()
            towards = asyncio.create_task(_forward(page, there))
            with suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
                async for message in there:
                    await (page.send_text if isinstance(message, str) else page.send_bytes)(message)
            towards.cancel()
            with suppress(WebSocketDisconnect, RuntimeError):
                await page.close(there.close_code or 1000)

    path = PREFIX + "/{path:path}"
    methods = ["GET", "HEAD", "POST"]

    async def framing(request: Request) -> HTMLResponse:
        source = f"http://127.0.0.1:{request.url.port}{PREFIX}/"
        return HTMLResponse(FRAME.format(source=source))

    own = [
        Route("/", framing),  # for a browser that calls it localhost, another site
        Route("/favicon.ico", lambda request: Response(status_code=204)),
    ]
    routes = [*own, Route(path, pages, methods=methods), WebSocketRoute(path, sockets)]
    return Starlette(routes=routes, lifespan=lifespan)


def _closing(answer: httpx.Response) -> BackgroundTask:
    return BackgroundTask(answer.aclose)


async def _forward(page: WebSocket, there) -> None:
    with suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        while True:
            await there.send(await page.receive_text())
    await there.close()


@contextmanager
def running(upstream: str, port: int) -> Iterator[str]:
    """The proxy on a thread of its own; yields its address."""
    config = uvicorn.Config(application(upstream), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the proxy did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}{PREFIX}/"
    server.should_exit = server.force_exit = True
    thread.join(20)
