"""The running studio as a page sees it: `python -m benchmarks.live [--seconds 10]`.

Starts `app.py` as its own process, connects one and then two pages through the WebSocket, and
reports the time to the page, to the first picture, control steps and pictures a second per page,
plan latency, and memory per session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import websockets

from studio.places import ROOT

START_LIMIT_S = 180.0


@dataclass
class Page:
    """What one page saw while it ran."""

    first_frame_s: float = 0.0
    frames: int = 0
    steps: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    frame_delay_ms: list[float] = field(default_factory=list)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_page(port: int, began: float) -> float:
    """Seconds from `began` until the page answers."""
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            return time.monotonic() - began
        except (urllib.error.URLError, OSError):
            if time.monotonic() - began > START_LIMIT_S:
                raise
            time.sleep(0.05)


def resident_mb(pid: int, kind: str = "Pss") -> float:
    """Proportional memory of a process, MB; "Pss_Anon" is that without the files it maps."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def children(pid: int) -> list[int]:
    """Direct child processes."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # one per thread that started some
    return [int(child) for file in lists for child in file.read_text().split()]


async def watch(port: int, seconds: float, began: float, task: int) -> Page:
    """Open a page, run its scene for `seconds`, count what comes."""
    page = Page()
    address = f"ws://127.0.0.1:{port}/live/ws?token={secrets.token_hex(16)}"
    async with websockets.connect(address, max_size=2**24) as link:
        send = lambda **message: link.send(json.dumps(message))  # noqa: E731
        running_since, first_step = None, 0
        await send(type="load", suite="libero_object", task=task, init=40, seed=0)
        async for message in link:
            now = time.monotonic()
            if isinstance(message, bytes):
                await send(type="ack")
                page.first_frame_s = page.first_frame_s or now - began
                if running_since:
                    (length,) = struct.unpack("<I", message[:4])
                    stamp = json.loads(message[4 : 4 + length])["time"]
                    page.frame_delay_ms.append(1000 * (time.time() - stamp))
                    page.frames += 1
                else:
                    await send(type="run")
            else:
                data = json.loads(message)
                if data["type"] == "plan":
                    page.latencies_ms.append(data["latency_ms"])
                if data["type"] == "state" and data["status"] == "running":
                    if running_since is None and data["step"] >= 8:  # the first plan warms up
                        running_since, first_step = now, data["step"]
                    page.steps = data["step"] - first_step
                ended = data["type"] == "state" and data["status"] in ("ended", "error")
            if running_since and (now - running_since > seconds or ended):
                span = now - running_since
                page.frames, page.steps = page.frames / span, page.steps / span
                return page


async def measure(seconds: float) -> list[tuple[str, str]]:
    """Start the studio and return the rows of the table."""
    port, began = free_port(), time.monotonic()
    studio = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT)
    try:
        page_s = await asyncio.to_thread(wait_for_page, port, began)
        one = await watch(port, seconds, began, task=0)
        both = await asyncio.gather(
            watch(port, seconds, began, task=1), watch(port, seconds, began, task=2)
        )
        memory = [resident_mb(pid) for pid in children(studio.pid)]
        return [
            ("`app.py` to page answering", f"{page_s:.1f} s"),
            ("`app.py` to first live picture", f"{one.first_frame_s:.1f} s"),
            ("one page: control steps/s, pictures/s", f"{one.steps:.1f}, {one.frames:.1f}"),
            (
                "two pages: control steps/s each",
                ", ".join(f"{page.steps:.1f}" for page in both),
            ),
            ("plan (encode + K = 15 + trace), median", _ms(one.latencies_ms)),
            ("picture, rendered to received, median", _ms(one.frame_delay_ms)),
            ("memory of the app", f"{resident_mb(studio.pid):.0f} MB"),
            ("memory of a session's simulator", f"{statistics.mean(memory):.0f} MB"),
        ]
    finally:
        studio.terminate()
        studio.wait(20)


def _ms(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ms"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    rows = asyncio.run(measure(parser.parse_args().seconds))
    print("| the running studio | measured |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
