"""Driving by hand in the real browser: `python -m benchmarks.teleop [--minutes 30]`.

Starts `app.py` and the Chromium at $CHROMIUM, takes the arm, and reports how long a key press takes
to change the picture on the page (from the browser's own time of the event to the drawn frame),
and whether the control loop has counted every one of many random presses and releases. With
`--minutes` a person drives and records one episode for so long instead, and the memory of the app,
of the simulator and of the page's scripts is followed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.live import ROOT, children, free_port, resident_mb, wait_for_page

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
STATE = "window.studio?.live.state"
MOVES = "wasdqeijkluofvg"
RATE_HZ = 33.0  # random events a second: 10,000 in five minutes
HOLD_S = 0.2
SAMPLES = 10  # looks at the memory after the first one
CHANGE_S = 0.5  # how long a person who records holds the same keys, on average

# Resolves to ms from the next key press to the first frame whose pixels differ.
WATCH = """() => {
  const views = ["live-agentview", "live-wrist"].map((id) => document.getElementById(id));
  const print = () => views.map((view) => {
    const bytes = view.getContext("2d").getImageData(0, 0, view.width, view.height).data;
    return new Uint32Array(bytes.buffer).reduce((hash, pixel) => (hash * 31 + pixel) | 0, 0);
  }).join();
  const before = print();
  let pressed = null;
  document.addEventListener("keydown", (event) => (pressed = event.timeStamp), { once: true });
  window.latency = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (pressed === null || print() === before) return;
      observer.disconnect();
      resolve(performance.now() - pressed);
    });
    observer.observe(document.querySelector(".st-stage"), { attributeFilter: ["data-frames"] });
  });
}"""


def take_the_arm(page: Page, address: str) -> None:
    """Open the page and let a person drive, at rest."""
    page.goto(address)
    page.wait_for_function(f"{STATE}?.status === 'paused'", timeout=180_000)
    page.keyboard.press("t")
    rest(page)


def rest(page: Page) -> None:
    """Wait until nothing moves any more."""
    page.wait_for_function(f"{STATE}.resting", timeout=120_000)


def latencies(page: Page, presses: int, chance: random.Random) -> list[float]:
    """Milliseconds from a key press to the first changed frame, each from rest."""
    found = []
    for _ in range(presses):
        page.evaluate(WATCH)
        key = chance.choice("wasde")
        page.keyboard.down(key)
        found.append(page.evaluate("window.latency"))
        time.sleep(chance.random() * HOLD_S)
        page.keyboard.up(key)
        rest(page)
    return found


def random_keys(page: Page, events: int, chance: random.Random) -> tuple[int, int, int]:
    """Press and release at random: events made, sent by the page, counted by the loop."""
    counts = "(({ sent, heard }) => [sent, heard])(studio.inputs())"
    sent, heard = page.evaluate(counts)
    held: set[str] = set()
    began = time.monotonic()
    for number in range(events):
        last = number >= events - len(held)
        key = chance.choice(sorted(held)) if last else chance.choice(MOVES)
        (page.keyboard.up if key in held else page.keyboard.down)(key)
        held ^= {key}
        time.sleep(max(0.0, began + (number + 1) / RATE_HZ - time.monotonic()))
    rest(page)
    now = page.evaluate(counts)
    return events, now[0] - sent, now[1] - heard


@contextmanager
def driven_page() -> Iterator[tuple[int, Page]]:
    """The app's process id and its page, the arm in a person's hand."""
    port, began = free_port(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        options = ["--paused", "--port", str(port), "--workspace", folder]
        studio = subprocess.Popen([sys.executable, "app.py", *options], cwd=ROOT)
        try:
            wait_for_page(port, began)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            take_the_arm(page, f"http://127.0.0.1:{port}/")
            yield studio.pid, page
            browser.close()
        finally:
            studio.terminate()
            studio.wait(20)


def measure(presses: int, events: int, seed: int) -> list[tuple[str, str]]:
    """The rows of the table."""
    chance = random.Random(seed)
    with driven_page() as (_, page):
        waits = sorted(latencies(page, presses, chance))
        made, sent, heard = random_keys(page, events, chance)
    return [
        ("key press to first changed frame, median", f"{statistics.median(waits):.0f} ms"),
        ("the same, p95", f"{waits[int(0.95 * (len(waits) - 1))]:.0f} ms"),
        ("random presses and releases: made, sent, counted", f"{made:,}, {sent:,}, {heard:,}"),
    ]


@dataclass(frozen=True, slots=True)
class Sample:
    """A process's own memory in MB after so many control steps of one episode.

    Files that it maps are left out: their pages come and go with the machine's other work.
    """

    steps: int
    app: float
    simulator: float
    page: float  # what its scripts hold after a collection of garbage

    @classmethod
    def of(cls, pid: int, page: Page) -> Sample:
        devtools = page.context.new_cdp_session(page)
        devtools.send("HeapProfiler.collectGarbage")
        heap = devtools.send("Runtime.getHeapUsage")["usedSize"] / 2**20
        devtools.detach()
        (simulator,) = children(pid)
        steps = page.evaluate(f"{STATE}.step")
        return cls(steps, *(resident_mb(p, "Pss_Anon") for p in (pid, simulator)), heap)


def record(minutes: float, seed: int) -> Iterator[Sample]:
    """A person holds random keys for so long; the memory at the start and after each part."""
    chance = random.Random(seed)
    with driven_page() as (pid, page):
        yield Sample.of(pid, page)
        for _ in range(SAMPLES):
            hold_random_keys(page, 60 * minutes / SAMPLES, chance)
            if page.evaluate(f"{STATE}.status") != "running":
                raise RuntimeError("the episode has ended before its time; try another --seed")
            yield Sample.of(pid, page)


def hold_random_keys(page: Page, seconds: float, chance: random.Random) -> None:
    """There is always one down, so that the scene never rests."""
    until, held = time.monotonic() + seconds, "w"
    page.keyboard.down(held)
    while time.monotonic() < until:
        time.sleep(2 * CHANGE_S * chance.random())
        key = chance.choice(MOVES.replace(held, ""))
        page.keyboard.down(key)
        page.keyboard.up(held)
        held = key
    page.keyboard.up(held)


def growth(samples: list[Sample], name: str) -> float:
    """MB per 10,000 steps once everything has been used: from the first part's end on."""
    steps = [sample.steps for sample in samples[1:]]
    return 10_000 * np.polyfit(steps, [getattr(sample, name) for sample in samples[1:]], 1)[0]


def print_memory(minutes: float, seed: int) -> None:
    """A row per sample, as they come."""
    names, samples = ("app", "simulator", "page"), []
    print("| steps | app | simulator | the page's scripts |\n| --- | --- | --- | --- |")
    for sample in record(minutes, seed):
        samples.append(sample)
        row = " | ".join(f"{getattr(sample, name):.1f} MB" for name in names)
        print(f"| {sample.steps:,} | {row} |", flush=True)
    row = " | ".join(f"{growth(samples, name):+.1f} MB" for name in names)
    print(f"| per 10,000, after the first part | {row} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=60)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, help="of recording, to follow the memory")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.minutes:
        return print_memory(args.minutes, args.seed)
    rows = measure(args.presses, args.events, args.seed)
    print("| driving by hand | measured |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
