"""The studio as a real process and Chromium as a real page."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.helpers import ROOT, free_port
from tests.ui import proxy

expect.set_options(timeout=30_000)  # a small machine may be busy with scenes and jobs

SHIPPED = ROOT / "assets" / "checkpoints" / "eb-vla-tiny"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
TOKEN = "0123456789abcdef" * 2
RESTORE = """() => {
  const { state } = studio.live;
  for (const group of ["sampler", "camera", "light", "sensor"]) studio.reset(group);
  studio.instruct(state.task_instruction);
  studio.drive({ suite: "libero_object", task: 0, init: 40, seed: 0 });
  return state.episode;
}"""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[str]:
    """`python app.py` on a free port with the shipped checkpoint, or one of random weights."""
    checkpoint = SHIPPED if SHIPPED.exists() else request.getfixturevalue("debug_checkpoint")
    with app(checkpoint, tmp_path_factory.mktemp("app"), "--paused") as url:
        yield url


@pytest.fixture(scope="session")
def proxied(debug_checkpoint: Path, tmp_path_factory) -> Iterator[str]:
    """A small studio behind a proxy under a sub-path; it waits for whoever loads a page again."""
    folder = tmp_path_factory.mktemp("proxied")
    with behind_proxy(debug_checkpoint, folder, "--linger", "30") as address:
        yield address


@contextmanager
def behind_proxy(checkpoint: Path, folder: Path, *options: str) -> Iterator[str]:
    """`app` as visitors from elsewhere reach it."""
    with (
        app(checkpoint, folder, "--root-path", proxy.PREFIX, *options) as url,
        proxy.running(url.rstrip("/"), free_port()) as address,
    ):
        yield address


@contextmanager
def app(checkpoint: Path, folder: Path, *options: str) -> Iterator[str]:
    """`python app.py` with its log and its workspace in `folder`; yields its address."""
    port, log = free_port(), folder / "log.txt"
    command = [sys.executable, "app.py", "--checkpoint", str(checkpoint), "--port", str(port)]
    command += ["--workspace", str(folder / "runs"), *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()  # if that took too long


def _wait(url: str, app: subprocess.Popen, log: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if app.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the app did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.3)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    """A tab with a fresh episode at the defaults; faults of the page fail the test that had it.

    All tests share one session, and so one simulator: its token outlives their tabs.
    """
    with watched_tab(chromium, address) as tab:
        tab.context.add_init_script(f"sessionStorage.setItem('studio-token', '{TOKEN}')")
        tab.goto(address)
        wait_until_ready(tab, "running", "paused", "ended")
        if tab.evaluate("studio.live.state.status") != "paused":
            tab.click("#live-reset")
            wait_until_ready(tab)
        episode = tab.evaluate(RESTORE)
        tab.wait_for_function(f"window.studio.live.state.episode > {episode}", timeout=120_000)
        wait_until_ready(tab)
        yield tab


@pytest.fixture
def visit(chromium: Browser, proxied: str) -> Iterator[Callable[[], Page]]:
    """Opens the small studio as another person each time; faults fail the test."""
    with visitors(chromium, proxied) as open_tab:
        yield open_tab


@contextmanager
def visitors(chromium: Browser, address: str) -> Iterator[Callable[[], Page]]:
    """Opens `address` in a tab of its own each time."""
    with ExitStack() as tabs:

        def open_tab() -> Page:
            tab = tabs.enter_context(watched_tab(chromium, address))
            tab.goto(address)
            return tab

        yield open_tab


@contextmanager
def watched_tab(chromium: Browser, *inside: str) -> Iterator[Page]:
    """A tab of its own; afterwards fails for exceptions, console errors and requests elsewhere."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(120_000)  # of a click, say: see above
    tab, faults = context.new_page(), []
    here = (*inside, "data:", "blob:", *(urljoin(url, "/favicon.ico") for url in inside))
    tab.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    tab.on("console", lambda m: m.type == "error" and faults.append(f"{m.text} {m.location}"))
    tab.on("request", lambda r: r.url.startswith(here) or faults.append(f"left: {r.url}"))
    try:
        yield tab
    finally:
        context.close()
    assert faults == []


@pytest.fixture
def ready() -> Callable[[Page], None]:
    """`wait_until_ready`, for tests that load the page again."""
    return wait_until_ready


def until(tab: Page, condition: str, seconds: float = 150) -> None:
    """Wait until the page finds `condition` true."""
    tab.wait_for_function(condition, timeout=1000 * seconds)


def wait_until_ready(tab: Page, *statuses: str) -> None:
    """Wait until the scene stands (paused, unless told) and a picture of it is drawn."""
    drawn = "document.querySelector('.st-stage')?.dataset.frameEpisode"
    tab.wait_for_function(
        f"{list(statuses or ['paused'])}.includes(window.studio?.live.state?.status)"
        f" && {drawn} == studio.live.state.episode",
        timeout=120_000,
    )
