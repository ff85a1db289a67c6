"""A page whose policy is a server elsewhere: it plans, goes away in mid-episode, comes back."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.helpers import ROOT, free_port
from tests.ui.conftest import app, until, watched_tab
from tests.ui.test_visitors import DRIVES


class Server:
    """`python -m studio.serve` that can be killed and started again on its port."""

    def __init__(self, checkpoint: Path) -> None:
        self.port, self._checkpoint = free_port(), checkpoint
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "studio.serve", "--checkpoint", str(self._checkpoint)]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert "ws://" in self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def server(debug_checkpoint) -> Iterator[Server]:
    running = Server(debug_checkpoint)
    yield running
    running.kill()


def test_the_page_waits_for_a_server_that_is_away_and_goes_on(
    server, chromium, debug_checkpoint, tmp_path
):
    with ExitStack() as stack:
        options = ["--policy", f"ws://127.0.0.1:{server.port}"]
        url = stack.enter_context(app(debug_checkpoint, tmp_path, *options))
        tab = stack.enter_context(watched_tab(chromium, url))
        tab.goto(url)
        until(tab, DRIVES)
        until(tab, "Number(document.querySelector('#live-round-trip').textContent) > 0")
        server.kill()
        overlay = tab.locator("#live-overlay")
        expect(overlay).to_contain_text("Waiting for the policy", timeout=60_000)
        expect(overlay).to_contain_text(f"127.0.0.1:{server.port}")
        known = tab.evaluate("({ step: studio.live.state.step, plans: studio.live.plans.length })")
        server.start()
        until(tab, f"studio.live.plans.length > {known['plans']}")
        until(tab, f"studio.live.state.step > {known['step']}")
        expect(overlay).to_be_hidden()
        health = f"http://127.0.0.1:{server.port}/healthz"
        assert urllib.request.urlopen(health, timeout=60).status == 200
