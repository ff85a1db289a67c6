"""One story in a real browser: drive by hand, look through the recording, train on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.conftest import app, wait_until_ready, watched_tab
from tests.ui.test_train import choose, fill, open_tab
from tests.unit.recordings import record

SLOW = 300_000  # ms: a replay starts a simulator, a training loads torch
STATE = "studio.live.state"
STEPS = 24
PLOT = "document.getElementById('recordings-plot')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A workspace with an old recording of the policy beside it."""
    folder = tmp_path_factory.mktemp("recorded")
    record(folder / "recordings", "pppp", words={0: "open the drawer"})
    return folder


@pytest.fixture(scope="module")
def studio(debug_checkpoint: Path, folder: Path) -> Iterator[str]:
    with app(debug_checkpoint, folder, "--paused", "--sessions", "1") as address:
        yield address


@pytest.fixture(scope="module")
def tab(chromium: Browser, studio: str) -> Iterator[Page]:
    """One tab for the whole story."""
    with watched_tab(chromium, studio) as tab:
        tab.set_default_timeout(120_000)
        tab.goto(studio)
        wait_until_ready(tab)
        yield tab


def rows(tab: Page):
    return tab.locator("#recordings-library li[data-id]")


def kept(tab: Page):
    return rows(tab).filter(has_text="kept")


def viewer(tab: Page, action: str):
    return tab.locator(f"#recordings-viewer [data-action={action}]")


def test_what_a_person_drives_is_recorded_by_itself(tab: Page):
    expect(tab.locator("#live-record")).not_to_be_checked()
    tab.keyboard.press("t")
    tab.wait_for_function(f"{STATE}.driver === 'human' && {STATE}.resting")
    tab.keyboard.down("d")
    tab.wait_for_function(f"{STATE}.step >= {STEPS}")
    tab.keyboard.up("d")
    expect(tab.locator(".st-record p")).to_contain_text("by hand")
    expect(tab.locator(".st-record p")).to_contain_text("Recording")
    tab.locator(".st-record [data-action=keep]").click()
    expect(tab.locator("#live-toasts")).to_contain_text("Kept")
    tab.click("#live-reset")
    tab.wait_for_function(f"{STATE}.status === 'paused' && {STATE}.step === 0")


def test_the_library_filters_and_shows_who_drove(tab: Page):
    open_tab(tab, "Recordings")
    expect(rows(tab)).to_have_count(2)
    tab.locator("#recordings-library input[type=search]").fill("drawer")
    expect(rows(tab)).to_have_count(1)
    tab.locator("#recordings-library input[type=search]").fill("")
    tab.locator("#recordings-library [data-name=human]").click()
    expect(rows(tab)).to_have_count(1)
    expect(rows(tab).locator(".st-state")).to_contain_text("stopped")
    expect(rows(tab).locator(".st-state")).to_contain_text("kept")
    expect(rows(tab).locator("[data-driver=human]")).to_have_count(1)


def test_many_are_chosen_at_once(tab: Page):
    library, boxes = tab.locator("#recordings-library"), rows(tab).locator("input")
    library.locator("[data-name=all]").click()
    expect(rows(tab)).to_have_count(2)
    boxes.first.click()
    boxes.last.click(modifiers=["Shift"])
    expect(library.locator(".st-many")).to_contain_text("2 chosen")
    every = library.locator(".st-all input")
    every.click()
    expect(boxes.first).not_to_be_checked()
    every.click()
    expect(library.locator(".st-many")).to_contain_text("2 chosen")
    every.click()
    expect(library.locator(".st-many")).not_to_contain_text("chosen")
    library.locator("[data-name=human]").click()
    expect(rows(tab)).to_have_count(1)


def test_a_replay_makes_the_recorded_states_again(tab: Page):
    viewer(tab, "actions").click()
    expect(tab.locator(".st-verified")).to_contain_text("bit for bit", timeout=SLOW)
    tab.locator("#recordings-step").fill("10")
    wrist = tab.locator("#recordings-viewer img[data-camera=wrist]")
    expect(wrist).to_have_js_property("naturalWidth", 128)
    assert "step=10" in wrist.get_attribute("src")
    last = tab.locator("#recordings-step").get_attribute("max")
    expect(tab.locator("#recordings-viewer output")).to_have_text(f"10 / {last}")


def test_a_slow_network_shows_some_pictures_in_time(tab: Page):
    slow = {"offline": False, "latency": 200, "downloadThroughput": -1, "uploadThroughput": -1}
    network = tab.context.new_cdp_session(tab)
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    tab.evaluate("""() => {
        window.seen = 0;
        document.querySelector("#recordings-viewer img").addEventListener("load", () => seen++);
    }""")
    tab.locator("#recordings-step").fill("0")
    viewer(tab, "play").click()
    expect(viewer(tab, "play")).to_have_text("❚❚")
    expect(viewer(tab, "play")).to_have_text("▶")
    network.send("Network.emulateNetworkConditions", slow | {"latency": 0})
    assert 1 < tab.evaluate("seen") < int(tab.locator("#recordings-step").get_attribute("max"))


def test_energies_by_any_checkpoint(tab: Page):
    """A list that was asked for before says nothing of it."""
    tab.evaluate("""() => {
        const { fetch } = window;
        window.fetch = async (url, ...more) => {
            const answer = await fetch(url, ...more);
            if (!String(url).endsWith("/recordings") || window.late) return answer;
            return new Promise((go) => { window.late = () => go(answer) });
        };
    }""")
    tab.wait_for_function("Boolean(window.late)")
    viewer(tab, "score").evaluate("button => { button.click(); late() }")
    tab.wait_for_function(f"{PLOT}?.data?.some(line => line.name === 'what was done')")
    found = tab.evaluate(f"{PLOT}.data[0].y")
    assert len(found) >= STEPS // 8 and all(isinstance(energy, int | float) for energy in found)


def test_what_does_not_count_is_trimmed(tab: Page):
    tab.locator("#recordings-step").fill("2")
    viewer(tab, "first").click()
    expect(tab.locator(".st-cut")).to_contain_text("steps 2 –")
    expect(rows(tab).locator(".st-drivers u")).to_have_count(1)
    tab.locator("#recordings-step").fill("1")
    expect(viewer(tab, "last")).to_be_disabled()
    tab.locator("#recordings-step").fill("4")
    expect(viewer(tab, "last")).to_be_enabled()


def test_a_star_is_taken_back(tab: Page):
    expect(viewer(tab, "keep")).to_have_text("★ Kept")
    viewer(tab, "keep").click()
    expect(viewer(tab, "keep")).to_have_text("☆ Keep")
    expect(rows(tab).locator(".st-state")).not_to_contain_text("kept")
    viewer(tab, "keep").click()
    expect(rows(tab).locator(".st-state")).to_contain_text("kept")


def test_discarding_can_be_undone(tab: Page):
    viewer(tab, "discard").click()
    expect(rows(tab)).to_have_count(0)
    tab.locator("#recordings-library [data-action=undo]").click()
    expect(rows(tab)).to_have_count(1)


def test_a_scene_is_done_again_and_its_recording_stays(tab: Page):
    scene = f"{STATE}.scene"
    tab.evaluate(f"studio.drive({{ ...{scene}, init: 7 }})")
    tab.wait_for_function(f"{STATE}.status !== 'loading' && {scene}.init === 7")
    viewer(tab, "redo").click()
    expect(tab.locator("#live-toasts")).to_contain_text("The recording stays")
    tab.wait_for_function(f"{STATE}.status !== 'loading' && {scene}.init !== 7")
    open_tab(tab, "Recordings")
    expect(kept(tab)).to_have_count(1)
    expect(tab.locator("#recordings-library [data-name=trash]")).to_have_text("trash")


def test_the_trash_is_emptied_after_a_question(tab: Page, folder: Path):
    library = tab.locator("#recordings-library")
    library.locator("[data-name=all]").click()
    with tab.expect_response("**/tape?*"), tab.expect_response("**/energies?*"):
        rows(tab).filter(has_text="drawer").click()
    expect(tab.locator("#recordings-viewer h3")).to_contain_text("drawer")
    for picture in tab.locator("#recordings-viewer img").all():  # or it would be asked for in vain
        expect(picture).to_have_js_property("naturalWidth", 32)
    viewer(tab, "discard").click()
    expect(library.locator("[data-action=undo]")).to_be_visible()
    library.locator("[data-name=trash]").click()
    library.locator("[data-action=empty]").click()
    expect(library.locator(".st-many")).to_contain_text("Delete 1 recording for good?")
    library.locator("[data-action=erase]").click()
    expect(rows(tab)).to_have_count(0)
    expect(library.locator(".st-many")).to_be_hidden()
    library.locator("[data-name=human]").click()
    expect(kept(tab)).to_have_count(1)  # what goes on in Live by hand may be there, too
    assert not (folder / "recordings" / ".trash").exists()


def test_a_recording_trains(tab: Page, folder: Path):
    kept(tab).locator("input").check()
    tab.set_viewport_size({"width": 390, "height": 844})  # where Train is in the menu of more tabs
    tab.locator("#recordings-library [data-action=train]").click()
    expect(tab.locator("#train-command code")).to_contain_text("data/recordings-1", timeout=SLOW)
    assert len(list((folder / "data" / "recordings-1").glob("*.hdf5"))) == 1
    expect(tab.locator("#live-toasts")).to_contain_text(f"choose {folder / 'data'} to train on")
    assert "--init" not in tab.locator("#train-command code").inner_text()  # no choice is Live's
    choose(tab, "train-preset", "debug")
    fill(tab, "train-minutes", "")
    fill(tab, "train-steps", "2")
    expect(tab.locator("#train-command code")).to_contain_text("--steps 2")
    tab.click("#train-launch")
    expect(tab.locator("#train-run .st-head .st-pill")).to_have_text("finished", timeout=SLOW)


def test_a_narrow_page_does_not_overflow(tab: Page):
    tab.set_viewport_size({"width": 390, "height": 844})
    open_tab(tab, "Recordings")
    expect(kept(tab)).to_have_count(1)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
