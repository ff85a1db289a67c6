"""Who comes to the studio: first, second, idle, through a proxy's sub-path, in another's frame."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import behind_proxy, until, visitors, watched_tab

DRIVES = (
    "window.studio?.live.state?.status === 'running' && window.studio.live.plans.length >= 1"
    " && Number(document.querySelector('.st-stage').dataset.frames) >= 5"
)


def test_a_fresh_visitor_sees_the_scene_drive(visit):
    tab = visit()
    until(tab, DRIVES)
    tab.evaluate("studio.pause()")
    until(tab, "studio.live.state.status === 'paused'")
    step = tab.evaluate("studio.live.state.step")
    tab.reload()  # the same visitor finds the scene as it was
    until(tab, "window.studio?.live.state?.status === 'paused'")
    assert tab.evaluate("studio.live.state.step") == step


@pytest.fixture
def visit_crowded(chromium, debug_checkpoint, tmp_path):
    """`visit` of a studio with one simulator, which is soon given on."""
    options = ["--sessions", "1", "--linger", "2"]
    with (
        behind_proxy(debug_checkpoint, tmp_path, *options) as address,
        visitors(chromium, address) as visit,
    ):
        yield visit


def test_the_second_visitor_waits_and_gets_in(visit_crowded):
    first = visit_crowded()
    until(first, DRIVES)
    second = visit_crowded()
    overlay = second.locator("#live-overlay")
    expect(overlay).to_contain_text("Number 1 in the queue", timeout=60_000)
    expect(overlay).to_contain_text("All 1 simulators are in use")
    first.context.close()
    until(second, DRIVES)
    expect(overlay).to_be_hidden()


@pytest.fixture
def visit_drowsy(chromium, debug_checkpoint, tmp_path):
    """`visit` of a studio where a page that is not used for nine seconds rests."""
    with (
        behind_proxy(debug_checkpoint, tmp_path, "--idle", "0.15") as address,
        visitors(chromium, address) as visit,
    ):
        yield visit


def test_an_unused_page_rests_until_it_is_asked_again(visit_drowsy):
    tab = visit_drowsy()
    until(tab, DRIVES)
    tab.keyboard.press(" ")
    tab.check("#live-record")
    overlay = tab.locator("#live-overlay")
    expect(overlay).to_contain_text("Resting", timeout=90_000)
    expect(tab.locator("#live-link")).to_have_text("resting")
    expect(tab.locator("#live-banner")).to_be_hidden()
    tab.click("#live-wake")
    expect(tab.locator("#live-toasts")).to_contain_text("The earlier session has ended")
    until(tab, DRIVES)
    expect(overlay).to_be_hidden()
    expect(tab.locator("#live-record")).to_be_checked()  # what it was told to do, it goes on doing


def test_after_the_end_the_next_state_is_one_click_away(visit):
    tab = visit()
    until(tab, DRIVES)
    tab.locator("#live-speed").select_option("0")
    init = tab.evaluate("studio.live.state.scene.init")
    banner = tab.locator("#live-outcome")
    expect(banner).to_contain_text("Timeout", timeout=240_000)  # its weights are random
    tab.click("#live-next")
    until(tab, DRIVES)
    assert tab.evaluate("studio.live.state.scene.init") == init + 1
    expect(banner).to_be_hidden()


@pytest.fixture
def framed(chromium, proxied):
    """A page of another site that frames the studio, as the Hugging Face Hub frames a Space."""
    site = urlsplit(proxied)._replace(path="/").geturl().replace("127.0.0.1", "localhost")
    with watched_tab(chromium, proxied, site) as tab:
        tab.goto(site)
        yield tab


def test_the_scene_streams_inside_another_sites_frame(framed, proxied):
    frame = next(frame for frame in framed.frames if frame.url == proxied)
    frame.wait_for_function(DRIVES, timeout=150_000)
    frame.locator("#live-filmstrip button").first.click()
    frame.locator("#live-landscape").scroll_into_view_if_needed()
    frame.wait_for_function(
        "document.getElementById('live-landscape-plot').data?.[0].z.length === 50", timeout=60_000
    )


def test_in_a_frame_keys_drive_after_a_click(framed, proxied):
    frame = next(frame for frame in framed.frames if frame.url == proxied)
    for target in (framed, frame):  # Playwright lets every page believe that it has the focus
        devtools = framed.context.new_cdp_session(target)
        devtools.send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    frame.wait_for_function(DRIVES, timeout=150_000)
    frame.click("#live-driver [data-value=human]")
    resting = "studio.live.state.driver === 'human' && studio.live.state.resting"
    frame.wait_for_function(resting, timeout=60_000)
    note = frame.locator("#live-focus")
    expect(note).to_be_hidden()

    def told() -> list[int]:
        return frame.evaluate("[studio.live.state.step, studio.inputs().sent]")

    framed.mouse.click(1400, 880)  # beside the frame
    expect(note).to_be_visible()
    before = told()
    framed.keyboard.press("d", delay=400)
    assert told() == before
    note.click()
    expect(note).to_be_hidden()
    framed.keyboard.down("d")
    frame.wait_for_function(f"studio.live.state.step >= {before[0] + 4}", timeout=60_000)
    framed.keyboard.up("d")
    frame.wait_for_function(resting, timeout=60_000)
    before = told()
    frame.locator("#live-instruction textarea, #live-instruction input").first.click()
    framed.keyboard.type("was die f", delay=40)
    assert told() == before
    framed.mouse.click(1400, 880)
    expect(note).to_be_visible()


def test_another_sites_own_socket_is_refused(framed, proxied):
    address = proxied.replace("http:", "ws:") + f"live/ws?token={'c' * 32}"
    code = framed.evaluate(
        "url => new Promise(done => { new WebSocket(url).onclose = e => done(e.code) })", address
    )
    assert code == 4403
