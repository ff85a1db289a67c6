"""PolicyServer: one policy, many clients, openpi's WebSocket protocol (see `studio.serve`).

The event loop reads and writes; one thread makes plans (`studio.batching`) and another what is
looked into beside them. Whoever leaves takes his request along.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from websockets import ConnectionClosed, Request, Response
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import CloseCode

from models.policy import Policy
from studio import extension, openpi
from studio.batching import MAX_BATCH, Batcher
from studio.extension import Query
from studio.helm import PolicyAway
from studio.openpi import BadRequest

log = logging.getLogger(__name__)

MAX_MESSAGE = 8 * 2**20  # bytes from a client: the largest images and as many chunks fit
MAX_CLIENTS = 128  # connected
MAX_QUEUE = 64  # requests in the house
MAX_UPDATES = 6400  # MCMC steps times chains of a descent: all that a sampler may ask for
MAX_TEXT = 500  # characters of an error: it may quote what a client sent
SEND_S = 20.0  # a client that doesn't take its reply for so long is dropped
SICK = 3  # failures in a row, after which /healthz says so
GRACE_S = 30.0  # what is in flight may take so long when the server stops
CONTROL = "__ctrl__"  # openpi's clients may tell when an episode begins and ends


class Busy(Exception):
    """The server can't take a request now; later it can."""


class ServerMetrics:
    """What `GET /metrics` tells, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = {"registry": self.registry, "namespace": "eb_vla"}
        self.requests = Counter(
            "requests", "Requests, by kind and outcome", ["kind", "outcome"], **made
        )
        self.plans = Counter("plans", "Plans made", **made)
        self.connections = Gauge("connections", "Clients connected", **made)
        self.queue = Gauge("queue_length", "Requests taken and not answered yet", **made)
        self.batch = Histogram(
            "batch_size", "Plans made together", buckets=(1, 2, 4, 8, 16), **made
        )
        self.latency = Histogram(
            "request_seconds", "From request to reply, by kind", ["kind"], **made
        )

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class PolicyServer:
    """See the module docstring."""

    def __init__(
        self,
        policy: Policy,
        *,
        api_key: str | None = None,
        max_queue: int = MAX_QUEUE,
        max_batch: int = MAX_BATCH,
        max_updates: int = MAX_UPDATES,
    ) -> None:
        """`max_queue`: requests taken and not answered yet; more are refused.

        `max_updates`: MCMC steps times chains of a descent; the others wait for it.
        Raises ValueError when a number is not positive, the key is empty or the policy is for
        another robot.
        """
        if api_key is not None and not api_key.strip():
            raise ValueError("the API key is empty; leave it out to let everyone in")
        if min(max_queue, max_batch, max_updates) < 1:
            raise ValueError(
                "the queue and a batch must hold at least one request, a plan an update"
            )
        extension.check_robot(policy.config)
        self.metrics = ServerMetrics()
        self._policy, self._api_key = policy, api_key and api_key.strip()
        self._max_queue, self._max_batch, self._max_updates = max_queue, max_batch, max_updates
        self._hello = openpi.pack(extension.metadata(policy))
        self._clients = self._in_house = self._unsent = self._failed = 0
        self._stopping = False

    async def run(
        self, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], None]
    ) -> None:
        """Serve until `stop` is set, then answer what is in flight and close.

        `ready` is told the port, a free one if `port` is 0. Raises OSError if it can't be used.
        """
        self._batcher = Batcher(self._policy, self._max_batch, self.metrics.batch.observe)
        self._beside, self._turn = ThreadPoolExecutor(1, "analyses"), asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        try:
            await self._listen(host, port, stop, ready)
        finally:
            self._batcher.close()
            self._beside.shutdown(wait=False)
            await asyncio.to_thread(self._batcher.join, GRACE_S)

    async def _listen(
        self, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], None]
    ) -> None:
        options = {"compression": None, "max_size": MAX_MESSAGE, "max_queue": 1}
        options["origins"] = [None]  # no browser's page of whatever site
        async with serve(
            self._converse, host, port, process_request=self._http, **options
        ) as server:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()
            self._stopping = True
            server.close(close_connections=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), GRACE_S)
            await _close(list(server.connections))

    # -- HTTP ---------------------------------------------------------------------------------
    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Health and metrics, and who may come in: None lets a WebSocket open."""
        path = request.path.split("?")[0]
        if path == "/healthz":
            if self._failed >= SICK:
                text = f"The last {self._failed} requests failed; the log says why.\n"
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
            return connection.respond(HTTPStatus.OK, "OK\n")
        shown = "\n".join(request.headers.get_all("Authorization"))
        wanted = f"Api-Key {self._api_key}"
        if self._api_key and not hmac.compare_digest(
            shown.encode(errors="replace"), wanted.encode()
        ):
            text = "This server wants its API key: Authorization: Api-Key ...\n"
            return connection.respond(HTTPStatus.UNAUTHORIZED, text)
        if path != "/metrics":
            if self._clients < MAX_CLIENTS:
                return None
            text = f"{MAX_CLIENTS} clients are connected already; try again later.\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        response = connection.respond(HTTPStatus.OK, self.metrics.text().decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE_LATEST
        return response

    # -- one client ---------------------------------------------------------------------------
    async def _converse(self, connection: ServerConnection) -> None:
        """From the metadata to the last reply."""
        gone = asyncio.create_task(connection.wait_closed())
        timing: dict[str, float] = {}
        self._clients += 1
        try:
            with self.metrics.connections.track_inprogress():
                await _send(connection, self._hello)
                async for message in connection:
                    started = time.monotonic()
                    await self._serve(connection, gone, message, timing)
                    timing = {"prev_total_ms": 1e3 * (time.monotonic() - started)}
        except ConnectionClosed as left:
            log.debug("client %s left: %s", connection.remote_address, left)
        finally:
            self._clients -= 1
            gone.cancel()

    async def _serve(
        self, connection: ServerConnection, gone: asyncio.Task, message: str | bytes, timing: dict
    ) -> None:
        """One reply to one message; what goes wrong is told in a text frame."""
        started, kind, outcome = time.monotonic(), "unknown", "ok"
        self._unsent += 1
        self._empty.clear()
        try:
            if isinstance(message, str):
                raise BadRequest("requests are binary frames of msgpack, not text")
            request = openpi.unpack(message)
            if isinstance(request, dict) and CONTROL in request:
                kind, reply = "control", {"__ack__": _event(request[CONTROL])}
            else:
                with self._place():
                    query = extension.parse(request)
                    kind = query.kind
                    reply = await self._while_there(gone, self._answer(query, timing))
                self._failed = 0 if reply else self._failed  # who left has none
            await _send(connection, openpi.pack(reply))
        except ConnectionClosed:
            outcome = "left"
            raise
        except (Busy, PolicyAway) as busy:
            outcome = "busy"
            await _send(connection, f"Busy: {busy}")
        except ValueError as error:
            outcome, text = "bad", str(error)[:MAX_TEXT]
            log.info("client %s: %s", connection.remote_address, text)
            await _send(connection, f"BadRequest: {text}")
        except Exception as error:
            outcome, self._failed = "error", self._failed + 1
            log.exception("client %s: %s", connection.remote_address, kind)
            await _send(connection, f"{type(error).__name__}: {error}"[:MAX_TEXT])
            await connection.close(CloseCode.INTERNAL_ERROR, "the reason was sent before")
        finally:
            self._unsent -= 1
            if not self._unsent:
                self._empty.set()
            self.metrics.requests.labels(kind, outcome).inc()
            self.metrics.latency.labels(kind).observe(time.monotonic() - started)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the requests that are being answered. Raises Busy if there is none."""
        if self._stopping:
            raise Busy("the server is stopping; try again when it is back")
        if self._in_house >= self._max_queue:
            raise Busy(f"{self._max_queue} requests are waiting already; try again later")
        self._in_house += 1
        self.metrics.queue.set(self._in_house)
        try:
            yield
        finally:
            self._in_house -= 1
            self.metrics.queue.set(self._in_house)

    async def _while_there(self, gone: asyncio.Task, answer: Any) -> dict[str, Any]:
        """The answer, given up when the client leaves; it can't be sent any more then."""
        work = asyncio.ensure_future(answer)
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else {}
        finally:
            work.cancel()

    async def _answer(self, query: Query, timing: dict[str, float]) -> dict[str, Any]:
        started, left = time.monotonic(), False
        try:
            self._check(query)
            if query.kind == "plan":
                asked = self._batcher.submit(
                    query.observation, query.sampler, query.seed, lambda: left
                )
                plan, waited = await asyncio.wrap_future(asked), time.monotonic() - started
                self.metrics.plans.inc()
                reply, took = extension.plan_reply(plan, query), 1e3 * plan.latency_s
                timing = {"queue_ms": 1e3 * waited - took, **timing}
            else:
                loop = asyncio.get_running_loop()
                async with self._turn:  # who leaves before takes the pictures along
                    reply = await loop.run_in_executor(
                        self._beside, extension.answer, self._policy, query, lambda: left
                    )
                took = 1e3 * (time.monotonic() - started)
        finally:
            left = True
        return reply | {"server_timing": {"infer_ms": took, **timing}}

    def _check(self, query: Query) -> None:
        """Raises ValueError for what would trouble those whose plans are made together with it."""
        self._policy.check(query.observation)
        steps, chains = query.sampler.steps, query.sampler.chains
        if steps * chains > self._max_updates:
            raise BadRequest(
                f"a descent of {steps} steps and {chains} chains keeps others waiting; "
                f"steps times chains must be at most {self._max_updates} here"
            )


def _event(name: object) -> str:
    """What a client told. Raises BadRequest if that is no short text."""
    if not isinstance(name, str) or len(name) > MAX_TEXT:
        raise BadRequest(f"'{CONTROL}' must be a text of at most {MAX_TEXT} characters")
    return name


async def _close(connections: list[ServerConnection]) -> None:
    """Say goodbye to each; one that doesn't listen is dropped."""
    said = (c.close(CloseCode.GOING_AWAY, "it stops") for c in connections)
    if goodbyes := [asyncio.ensure_future(one) for one in said]:
        await asyncio.wait(goodbyes, timeout=SEND_S)
    for connection in connections:
        connection.transport.abort()


async def _send(connection: ServerConnection, message: str | bytes) -> None:
    """Raises ConnectionClosed, of a client that doesn't take it too."""
    try:
        async with asyncio.timeout(SEND_S):
            await connection.send(message)
    except TimeoutError:
        connection.transport.abort()
        await connection.wait_closed()
        raise connection.protocol.close_exc from None


class ServerThread:
    """A server beside something else, such as the studio's page."""

    def __init__(self, server: PolicyServer, host: str, port: int) -> None:
        """Returns when it listens. Raises OSError if it can't."""
        self._stop, self._loop = asyncio.Event(), asyncio.new_event_loop()
        self._listening: Future[int] = Future()
        work = server.run(host, port, self._stop, self._listening.set_result)
        self._thread = threading.Thread(target=self._run, args=(work,), name="server", daemon=True)
        self._thread.start()
        self.port = self._listening.result()

    def stop(self) -> None:
        """Answer what is in flight, then end; safe to call twice."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, work: Coroutine) -> None:
        try:
            self._loop.run_until_complete(work)
        except Exception as error:
            if self._listening.done():
                raise
            self._listening.set_exception(error)
        finally:
            self._loop.close()
