"""RemotePolicy: a `Policy` that another process, such as a GPU machine's, computes.

Each call takes a connection of its own from a pool, so that the server can plan for several
sessions together. Every request can be asked again, since the same request has the same answer:
a connection that broke is replaced at once, and while nothing answers the next attempt waits ever
longer. Meanwhile calls raise `PolicyAway`, which a control loop waits out.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from websockets import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from models.config import Precision, SamplerConfig
from models.normalize import Scaled
from models.types import DescentTrace, LandscapeSlice, Observation, Plan
from studio import openpi
from studio.extension import EXTENSION, Served, check_robot, slice_of, trace_of
from studio.helm import PolicyAway
from studio.openpi import API_KEY

log = logging.getLogger(__name__)

BACKOFF_S = (0.5, 1, 2, 4)  # between attempts to reach a server
FIRST_S = 10.0  # for a server to be there at all: it may start together with who asks
OPEN_S = 3.0  # for a connection to open
PING_S = 4.0  # between two pings: a server plans beside them
PONG_S = 15.0  # for each to come back, behind the pictures that a slow line still sends
REPLY_S = 60.0  # for a reply to come
POLL_S = 0.05  # between looks at `stop()`
MAX_REPLY = 2**28  # bytes
MAX_AT_ONCE = 16  # plans asked for together


class ServerBusy(PolicyAway):
    """The server is there and has too much to do."""


class RemotePolicy(Scaled):
    """See the module docstring. Thread-safe."""

    device = "auto"  # of a checkpoint that this process loads instead
    precision: Precision = "float32"

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Connect to `url`, such as ws://host:8000; the API key may be in the environment.

        Raises ConnectionError if nothing answers there for about FIRST_S seconds, ValueError if
        it serves no EB-VLA.
        """
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"a policy server's address begins with ws:// or wss://, not {url!r}")
        key = api_key or os.environ.get(API_KEY)
        self.url, self._address = without_secrets(url), url
        self._headers = {"Authorization": f"Api-Key {key}"} if key else None
        self._pool: list[ClientConnection] = []
        self._lock = threading.Lock()
        self._failures, self._retry_at, self._reason = 0, 0.0, ""
        self._served: Served | None = None
        deadline = time.monotonic() + FIRST_S
        while not self._pool:
            try:
                self._pool.append(self._dial())
            except PolicyAway as away:
                if time.monotonic() + away.retry_s > deadline:
                    raise ConnectionError(str(away)) from None
                log.warning("waiting for %s: %s", self.url, away)
                time.sleep(away.retry_s)
        self.config, self.checkpoint = self._served.config, self._served.checkpoint
        self.calibration, self.statistics = self._served.calibration, self._served.statistics

    def plan(self, obs: Observation, sampler: SamplerConfig | None = None, seed: int = 0) -> Plan:
        """As `Policy.plan`; raises PolicyAway while the server can't plan."""
        return self._plan(obs, sampler or SamplerConfig(), seed)

    def _plan(
        self,
        obs: Observation,
        sampler: SamplerConfig,
        seed: int,
        stop: Callable[[], bool] | None = None,
    ) -> Plan:
        asked = {"seed": int(seed), "sampler": asdict(sampler), "trace": True}
        started = time.perf_counter()
        reply = self._ask(obs, asked, stop)
        round_trip = time.perf_counter() - started
        told = reply[EXTENSION]
        return Plan(
            actions=reply["actions"],
            trace=trace_of(told["trace"]) if "trace" in told else None,
            chain=told["chain"],
            sampler=sampler,
            seed=seed,
            observation=obs,
            latency_s=reply["server_timing"]["infer_ms"] / 1e3,
            readout=told["readout"],
            energy_gap=told["energy_gap"],
            context_distance=told["context_distance"],
            round_trip_s=round_trip,
        )

    def check(self, obs: Observation) -> None:
        """Nothing: the server looks at each observation itself."""

    def plan_batch(
        self,
        observations: Sequence[Observation],
        sampler: SamplerConfig,
        seeds: Sequence[int],
        stop: Callable[[], bool] | None = None,
    ) -> list[Plan]:
        """As `Policy.plan_batch`: asked for at once, the server makes batches of them.

        Those that find it busy, with the others perhaps, are asked for once more, one by one.
        """

        def one(obs: Observation, seed: int) -> Plan | None:
            try:
                return self._plan(obs, sampler, seed, stop)
            except ServerBusy:
                return None

        with ThreadPoolExecutor(min(max(1, len(observations)), MAX_AT_ONCE)) as threads:
            made = list(threads.map(one, observations, seeds))
        return [
            plan or self._plan(obs, sampler, seed, stop)
            for plan, obs, seed in zip(made, observations, seeds, strict=True)
        ]

    def explore(
        self,
        obs: Observation,
        sampler: SamplerConfig,
        seed: int = 0,
        stop: Callable[[], bool] | None = None,
    ) -> DescentTrace:
        """As `Policy.explore`; the server stops, too."""
        asked = {"kind": "explore", "seed": int(seed), "sampler": asdict(sampler)}
        return trace_of(self._ask(obs, asked, stop)[EXTENSION]["trace"])

    def energies(
        self, obs: Observation, actions: np.ndarray, stop: Callable[[], bool] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Policy.energies`; the server stops, too."""
        found = self._ask(obs, {"kind": "energies", "actions": actions}, stop)[EXTENSION]
        return found["energies"], found["timestep_energies"]

    def slice_2d(
        self,
        obs: Observation,
        centre: np.ndarray,
        timestep: int = 0,
        dims: tuple[int, int] = (0, 1),
        span: float | tuple[float, float] = 1.0,
        grid: int = 50,
        stop: Callable[[], bool] | None = None,
    ) -> LandscapeSlice:
        """As `Policy.slice_2d`; the server stops, too."""
        asked = {"centre": centre, "timestep": timestep, "dims": dims, "span": span, "grid": grid}
        return slice_of(self._ask(obs, {"kind": "slice_2d", **asked}, stop)[EXTENSION]["slice"])

    def close(self) -> None:
        """Close the connections; a later call opens one again."""
        with self._lock:
            pool, self._pool = self._pool, []
        for connection in pool:
            connection.close()

    # -- one request --------------------------------------------------------------------------
    def _ask(
        self, obs: Observation, asked: dict[str, Any], stop: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """The reply, with a fresh connection if an old one turns out to be broken.

        Raises RuntimeError when the server itself has failed, twice.
        """
        request = openpi.pack(openpi.to_request(obs) | {EXTENSION: asked})
        for connection in (self._idle(), None):
            connection = connection or self._dial()
            try:
                connection.send(request)
                reply = _receive(connection, stop)
            except ConnectionClosed as error:
                self.close()  # the others in the pool are of the same age
                broken = error
                continue
            except BaseException:
                connection.close()  # whatever it still sends answers nobody
                raise
            if failure := _failure(reply):  # the server closes it; the next time may go well
                connection.close()
                broken = failure
                continue
            with self._lock:
                self._pool.append(connection)
            return _reply(reply)
        if isinstance(broken, RuntimeError):
            raise broken
        raise self._away(f"it closed the connection: {broken}")

    def _idle(self) -> ClientConnection | None:
        with self._lock:
            return self._pool.pop() if self._pool else None

    def _dial(self) -> ClientConnection:
        """A new connection. Raises PolicyAway, at once while it is too early for an attempt."""
        with self._lock:
            wait = self._retry_at - time.monotonic()
            if wait > 0:
                raise PolicyAway(self._reason, wait)
        try:
            connection = connect(
                self._address, legacy=True, compression=None, max_size=MAX_REPLY,
                additional_headers=self._headers, open_timeout=OPEN_S, close_timeout=1,
                ping_interval=PING_S, ping_timeout=PONG_S,
            )  # fmt: skip
            _give_up_sending(connection.socket)
            self._greet(connection)
        except InvalidURI as error:
            raise ValueError(str(error)) from None
        except InvalidStatus as refused:
            if refused.response.status_code == 401:
                raise ValueError(
                    f"the policy server at {self.url} wants an API key; set {API_KEY}"
                ) from None
            if refused.response.status_code == 503:  # and says why
                text = refused.response.body.decode(errors="replace").strip()
                raise ServerBusy(f"The policy server is busy: {text}", BACKOFF_S[-1]) from None
            raise self._away(f"it answers {refused.response.status_code}") from None
        except (OSError, WebSocketException) as error:
            raise self._away(str(error) or type(error).__name__) from None
        self._failures = 0
        return connection

    def _greet(self, connection: ClientConnection) -> None:
        """Read what is served; it must be what was served before. Raises ValueError."""
        try:
            hello = connection.recv(OPEN_S)
            served = Served.read(openpi.unpack(hello) if isinstance(hello, bytes) else {}, self.url)
            check_robot(served.config)
            if self._served and served.checkpoint.sha256 != self._served.checkpoint.sha256:
                raise ValueError(
                    f"{self.url} serves another checkpoint now ({served.checkpoint.path}, "
                    f"{served.checkpoint.sha256[:8]}); start the studio again to use it"
                )
        except BaseException:
            connection.close()
            raise
        self._served = served

    def _away(self, reason: str) -> PolicyAway:
        """The error of a server that doesn't answer; the next attempts come ever later."""
        wait = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        text = (
            f"No policy server answers at {self.url} ({reason}). Start one there with "
            "python -m studio.serve" + ("; the scene goes on by itself." if self._served else ".")
        )
        with self._lock:
            self._failures, self._reason = self._failures + 1, text
            self._retry_at = time.monotonic() + wait
        return PolicyAway(text, wait)


def without_secrets(url: str) -> str:
    """An address as it may be shown: no user, no password, no query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _give_up_sending(channel: socket.socket) -> None:
    """End a connection whose other side takes no data any more: pings wait behind what is sent."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1e3 * PONG_S))


def _receive(connection: ClientConnection, stop: Callable[[], bool] | None) -> str | bytes:
    """The next frame. Raises InterruptedError on `stop()`, PolicyAway if it takes too long."""
    deadline = time.monotonic() + REPLY_S
    while time.monotonic() < deadline:
        if stop and stop():
            raise InterruptedError("stopped: a newer request waits")
        try:
            return connection.recv(POLL_S if stop else REPLY_S)
        except TimeoutError:
            continue
    raise PolicyAway(f"The policy server has not answered for {REPLY_S:g} s.", BACKOFF_S[0])


def _failure(reply: str | bytes) -> RuntimeError | None:
    """The server's own fault, if that is the reply, and none of the request's."""
    if isinstance(reply, str) and not reply.startswith(("Busy: ", "BadRequest: ")):
        return RuntimeError(f"the policy server failed: {reply}")
    return None


def _reply(reply: str | bytes) -> dict[str, Any]:
    """The map in a reply. Raises what a text frame says: ServerBusy or ValueError."""
    if isinstance(reply, bytes):
        return openpi.unpack(reply)
    kind, _, text = reply.partition(": ")
    if kind == "Busy":
        raise ServerBusy(f"The policy server is busy: {text}.", BACKOFF_S[0])
    raise ValueError(f"the policy server says: {text}")
