"""The studio as a real process and Chromium as a real page."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "assets" / "checkpoints" / "eb-vla-tiny"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
TOKEN = "0123456789abcdef" * 2
RESTORE = """() => {
  const { state } = studio.live;
  studio.reset("sampler");
  studio.reset("camera");
  studio.instruct(state.task_instruction);
  studio.load("libero_object", 0, 40, 0);
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log.txt"
    command = [sys.executable, "app.py", "--checkpoint", str(checkpoint), "--port", str(port)]
    with log.open("w") as out:
        app = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, app, log)
        yield url
    finally:
        app.terminate()
        app.wait(20)


def _wait(url: str, app: subprocess.Popen, log: Path, seconds: float = 120) -> None:
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
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(f"sessionStorage.setItem('studio-token', '{TOKEN}')")
    tab = context.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(f"exception: {error}"))
    tab.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("request", lambda r: _inside(r.url, address) or faults.append(f"left: {r.url}"))
    tab.goto(address)
    wait_until_ready(tab, "running", "paused", "ended")
    episode = tab.evaluate(RESTORE)
    tab.wait_for_function(f"window.studio.live.state.episode > {episode}", timeout=120_000)
    wait_until_ready(tab)
    yield tab
    context.close()
    assert faults == []


def _inside(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


@pytest.fixture
def ready() -> Callable[[Page], None]:
    """`wait_until_ready`, for tests that load the page again."""
    return wait_until_ready


def wait_until_ready(tab: Page, *statuses: str) -> None:
    """Wait until the scene stands (paused, unless told) and the first picture is drawn."""
    tab.wait_for_function(
        f"{list(statuses or ['paused'])}.includes(window.studio?.live.state?.status)"
        " && Number(document.querySelector('.st-stage')?.dataset.frames) > 0",
        timeout=120_000,
    )
