"""Train and Collect in a real browser: launch, follow, stop, resume, reload, use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio import static
from tests.ui.conftest import app, until, wait_until_ready, watched_tab
from tests.unit.test_models_data import write_demos

SLOW = 300_000  # ms: a training loads torch and its data before the first loss
LOSS = "document.getElementById('train-plot-loss')"
POINTS = f"({LOSS}?.data?.[0]?.x ?? []).length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds a workspace, and demonstrations beside it: two good folders and a broken one."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("bad", "milk", "soup"):
        (folder / "data" / name).mkdir(parents=True)
    write_demos(folder / "data" / "milk" / "milk_demo.hdf5", demos=3, steps=12, pixels="fast")
    write_demos(folder / "data" / "soup" / "soup_demo.hdf5", "pick up the soup", pixels="fast")
    (folder / "data" / "bad" / "bad_demo.hdf5").write_bytes(b"nonsense")
    return folder


@pytest.fixture(scope="module")
def studio(debug_checkpoint: Path, folder: Path) -> Iterator[str]:
    with app(debug_checkpoint, folder, "--paused", "--sessions", "1") as address:
        yield address


@pytest.fixture
def tab(chromium: Browser, studio: str) -> Iterator[Page]:
    with watched_tab(chromium, studio) as tab:
        tab.goto(studio)
        yield tab


FORMS = {"Train": "train", "Collect": "collect", "OOD lab": "lab"}  # by tab


def open_tab(page: Page, name: str) -> None:
    """Open a tab; a form is there with its command."""
    page.get_by_role("tab", name=name, exact=True).click()
    if form := FORMS.get(name):
        expect(page.locator(f"#{form}-command .st-command[data-state]")).to_be_attached()


def open_train(page: Page) -> None:
    """Open Train; its demonstrations are listed, and some are chosen."""
    open_tab(page, "Train")
    expect(page.locator("#train-data input").first).not_to_have_value("")


def choose(page: Page, elem_id: str, text: str) -> None:
    """Type into a list and take what was typed."""
    box = page.locator(f"#{elem_id} input").first
    box.click()
    box.fill(text)
    box.press("Enter")


def fill(page: Page, elem_id: str, text: str) -> None:
    page.locator(f"#{elem_id} :is(input, textarea)").first.fill(text)


def command(page: Page) -> str:
    return page.locator("#train-command code").inner_text()


def pill(page: Page, state: str, tab: str = "train") -> None:
    expect(page.locator(f"#{tab}-run .st-pill")).to_have_text(state, timeout=SLOW)


def bend(page: Page, part: str, answer: str) -> None:
    """Have requests whose address holds `part` end in the JavaScript promise `answer`.

    In the page, because the browser itself counts a failed request as an error of the page.
    """
    page.evaluate(f"""() => {{
        window.straight ??= window.fetch;
        window.fetch = (url, ...more) => String(url).includes("{part}")
            ? {answer} : window.straight(url, ...more);
    }}""")


def straighten(page: Page) -> None:
    page.evaluate("() => { window.fetch = window.straight }")


UNREACHED = "Promise.reject(new TypeError('unreachable'))"


def press(page: Page, action: str, tab: str = "train") -> None:
    page.locator(f"#{tab}-run [data-action={action}]").click()


def test_the_command_follows_the_form_and_says_what_is_wrong(tab: Page, folder: Path):
    open_train(tab)
    expect(tab.locator("#train-command code")).to_contain_text("--minutes 60")
    assert str(folder / "data" / "bad") in command(tab)
    fill(tab, "train-minutes", "")
    expect(tab.locator("#train-command .st-command")).to_have_attribute("data-state", "bad")
    expect(tab.locator("#train-command code")).to_contain_text("--steps or --minutes")
    expect(tab.locator("#train-launch")).to_be_disabled()
    fill(tab, "train-steps", "40")
    choose(tab, "train-data", "/etc")
    expect(tab.locator("#train-command code")).to_contain_text("lies outside")
    choose(tab, "train-data", str(folder / "data" / "milk"))
    expect(tab.locator("#train-command code")).to_contain_text("data/milk")
    expect(tab.locator("#train-launch")).to_be_enabled()


def test_what_is_filled_in_outlives_a_reload(tab: Page, folder: Path):
    milk = str(folder / "data" / "milk")
    open_train(tab)
    choose(tab, "train-data", milk)
    fill(tab, "train-minutes", "")
    fill(tab, "train-steps", "33")
    open_tab(tab, "OOD lab")
    choose(tab, "lab-suite", "libero_goal")
    expect(tab.locator("#lab-command code")).to_contain_text("libero_object,libero_goal")
    tab.reload()
    open_tab(tab, "Train")
    expect(tab.locator("#train-steps input")).to_have_value("33")
    expect(tab.locator("#train-minutes input")).to_have_value("")
    expect(tab.locator("#train-command code")).to_contain_text("--steps 33")
    assert milk in command(tab) and "--minutes" not in command(tab)
    open_tab(tab, "OOD lab")
    expect(tab.locator("#lab-suite")).to_contain_text("libero_goal")
    expect(tab.locator("#lab-command code")).to_contain_text("libero_object,libero_goal")

    tab.click("#lab-reset")
    expect(tab.locator("#lab-command code")).not_to_contain_text("libero_goal")
    open_tab(tab, "Train")
    tab.click("#train-reset")
    expect(tab.locator("#train-minutes input")).to_have_value("60")
    expect(tab.locator("#train-command code")).to_contain_text("--minutes 60")
    assert milk in command(tab) and "--steps" not in command(tab)


def test_the_field_that_has_the_focus_says_what_it_is(tab: Page):
    open_train(tab)
    tab.locator("#train-steps input").focus()
    expect(tab.locator(".st-explained")).to_contain_text("Optimiser steps")
    expect(tab.locator("#train-steps input")).to_have_accessible_description(re.compile("^Optim"))
    tab.locator("#train-minutes input").focus()
    expect(tab.locator(".st-explained")).to_contain_text("Training time")
    tab.get_by_text("Optimiser", exact=True).click()
    expect(tab.locator(".st-explained")).to_have_count(0)
    tab.locator("#train-ema input").press("ArrowDown")
    expect(tab.locator("#train-ema input")).to_have_value("0.997")


def test_a_lost_connection_is_no_fault_of_the_form(tab: Page):
    open_train(tab)
    expect(tab.locator("#train-command code")).to_contain_text("--minutes 60")
    bend(tab, "jobs/preview", UNREACHED)
    fill(tab, "train-minutes", "7")
    expect(tab.locator("#train-command code")).to_contain_text("does not answer")
    expect(tab.locator("#train-launch")).to_be_enabled()
    straighten(tab)
    expect(tab.locator("#train-command code")).to_contain_text("--minutes 7")

    tab.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tab.get_by_role("button", name="Copy the command").click()
    expect(tab.locator("#live-toasts")).to_contain_text("The command is selected")
    assert tab.evaluate("getSelection().toString()").split() == command(tab).split()


def test_visitors_of_a_public_studio_launch_nothing(tab: Page):
    open_train(tab)
    until(tab, "window.studio?.live.config")
    tab.evaluate("() => { studio.live.config.owners = 'Its owner does that.' }")
    fill(tab, "train-steps", "7")
    expect(tab.locator("#train-command code")).to_contain_text("--steps 7")
    expect(tab.locator("#train-launch")).to_be_disabled()
    open_tab(tab, "OOD lab")
    calibrate = tab.locator("#lab-study [data-action=calibrate]")
    expect(calibrate).to_have_attribute("title", "Its owner does that.")
    expect(calibrate).to_be_disabled()


def test_a_list_that_fails_is_told(tab: Page):
    bend(tab, "/jobs", "Promise.resolve(new Response('', { status: 500 }))")
    open_tab(tab, "Train")
    expect(tab.locator("#train-run .st-unlisted")).to_contain_text("answered 500")
    straighten(tab)
    expect(tab.locator("#train-run .st-unlisted")).to_be_hidden()
    expect(tab.locator("#train-page .st-run")).not_to_contain_text("Looking for runs")


def test_a_failed_run_says_why(tab: Page, folder: Path):
    open_train(tab)
    choose(tab, "train-data", str(folder / "data" / "bad"))
    fill(tab, "train-name", "broken")
    expect(tab.locator("#train-command code")).to_contain_text("runs/broken")
    tab.click("#train-launch")
    pill(tab, "failed")
    expect(tab.locator("#train-run .st-problem")).to_contain_text("bad_demo.hdf5")
    expect(tab.locator("#train-run pre").first).to_contain_text("bad_demo.hdf5")
    expect(tab.locator("#train-run [data-action=resume]")).to_be_visible()

    tab.click("#train-reset")
    choose(tab, "train-data", str(folder / "data" / "milk"))
    expect(tab.locator("#train-command code")).to_contain_text("data/milk")
    press(tab, "reuse")
    expect(tab.locator("#train-command code")).to_contain_text("data/bad")
    expect(tab.locator("#train-command code")).not_to_contain_text("runs/broken")


def test_a_training_from_launch_to_live(tab: Page, folder: Path, studio: str):
    open_train(tab)
    choose(tab, "train-data", str(folder / "data" / "milk"))
    choose(tab, "train-preset", "debug")
    for name, value in {"minutes": "", "steps": "100000", "name": "first"}.items():
        fill(tab, f"train-{name}", value)
    tab.get_by_text("Data and machine").click()
    for name, value in {"threads": "1", "log_every": "1"}.items():
        fill(tab, f"train-{name}", value)
    expect(tab.locator("#train-command code")).to_contain_text("--threads 1")
    tab.click("#train-launch")
    pill(tab, "running")
    tab.wait_for_function(f"{POINTS} >= 2", timeout=SLOW)

    tab.evaluate(f"Plotly.relayout({LOSS}, {{'xaxis.range': [0, 3]}})")
    points = tab.evaluate(POINTS)
    tab.wait_for_function(f"{POINTS} > {points}", timeout=SLOW)
    assert tab.evaluate(f"{LOSS}.layout.xaxis.range") == [0, 3]

    tab.locator("#train-run [data-action=stop]").focus()
    step = tab.locator("#train-run .st-tiles dd").first.inner_text()
    expect(tab.locator("#train-run .st-tiles dd").first).not_to_have_text(step, timeout=SLOW)
    assert tab.evaluate("document.activeElement.dataset.action") == "stop"
    tab.locator("#train-run [data-action=stop]").hover()
    tab.mouse.down()
    step = tab.locator("#train-run .st-tiles dd").first.inner_text()
    expect(tab.locator("#train-run .st-tiles dd").first).not_to_have_text(step, timeout=SLOW)
    tab.mouse.up()
    pill(tab, "stopped")
    points = tab.evaluate(POINTS)
    press(tab, "resume")
    pill(tab, "running")
    tab.wait_for_function(f"{POINTS} > {points}", timeout=SLOW)

    tab.reload()
    open_tab(tab, "Train")
    pill(tab, "running")
    expect(tab.locator("#train-run h3")).to_have_text("first")
    tab.wait_for_function(f"{POINTS} > {points}", timeout=SLOW)
    press(tab, "stop")
    pill(tab, "stopped")

    tab.get_by_role("button", name="Use last in Live").click()
    expect(tab.locator("#live-checkpoint b")).to_have_text("first/last", timeout=SLOW)
    wait_until_ready(tab)
    tab.click("#live-chunk")
    tab.wait_for_function("window.studio.live.plans.length === 1", timeout=SLOW)

    open_tab(tab, "Train")
    tab.get_by_role("button", name="Back to debug").click()
    expect(tab.locator("#live-checkpoint b")).to_have_text("debug", timeout=SLOW)
    open_tab(tab, "Train")
    expect(tab.get_by_role("button", name="Back to debug")).to_have_count(0)


def test_runs_are_compared_in_one_plot(tab: Page, folder: Path):
    for name, level in (("left", 0.5), ("right", 0.2)):
        (folder / "runs" / name).mkdir(parents=True)
        rows = [f'{{"step": {i}, "elapsed_s": {i}, "l1": {level}}}\n' for i in (20, 40, 60)]
        (folder / "runs" / name / "metrics.jsonl").write_text("".join(rows))
    open_tab(tab, "Train")
    tab.locator("#train-runs tr[data-name=left]").press(" ")
    expect(tab.locator("#train-run h3")).to_have_text("left")
    tab.locator("#train-runs tr[data-name=right] input").check()
    tab.wait_for_function(f"{LOSS}?.data?.length === 2", timeout=SLOW)
    assert tab.evaluate(f"{LOSS}.data.map(t => t.y[0])") == [0.5, 0.2]
    tab.locator("#train-curves [data-axis=minutes]").click()
    tab.wait_for_function(f"{LOSS}?.data?.[0]?.x[2] === 1")


def test_curves_that_come_late_fit_their_place(tab: Page):
    held = "new Promise(go => (window.held ??= []).push(go)).then(() => straight(url, ...more))"
    bend(tab, "jobs/metrics", held)
    open_tab(tab, "Train")
    tab.wait_for_function("window.held?.length")
    open_tab(tab, "Live")
    tab.evaluate("() => { held.forEach(go => go()) }")
    tab.wait_for_timeout(2000)
    open_tab(tab, "Train")
    tab.wait_for_function(f"{LOSS}?._fullLayout?.width === {LOSS}?.clientWidth && {POINTS} > 0")


def test_what_is_handed_over_goes_on_from_its_checkpoint(tab: Page, folder: Path):
    milk = str(folder / "data" / "milk")
    open_train(tab)
    expect(tab.locator("#train-command code")).to_contain_text("--minutes 60")
    tab.evaluate(f"""async () => {{
        const train = await import(new URL("{static.address("train.js")}", document.baseURI));
        await train.trainOn("{milk}", "eb-vla-tiny");
    }}""")
    expect(tab.locator("#train-command code")).to_contain_text("--init assets/checkpoints/eb-vla")
    assert milk in command(tab)


def test_demonstrations_are_listed_and_shown(tab: Page, folder: Path):
    open_tab(tab, "Collect")
    tab.locator("#collect-run .st-chip", has_text=re.compile("/milk$")).click()
    expect(tab.locator("#collect-contents tbody tr")).to_have_count(1)
    expect(tab.locator("#collect-contents tbody")).to_contain_text("pick up the milk")
    tab.wait_for_function("document.querySelector('.st-strip img').naturalWidth > 0")
    tab.locator("#collect-contents [aria-label='Next demonstration']").click()
    expect(tab.locator("#collect-contents figcaption")).to_contain_text("2 of 3")
    bend(tab, "contents?", "new Promise(() => {})")
    tab.locator("#collect-run .st-chip", has_text=re.compile("/soup$")).click()
    expect(tab.locator("#collect-contents")).to_contain_text("Reading …")
    expect(tab.locator("#collect-contents tbody tr")).to_have_count(0)
    tab.reload()
    open_tab(tab, "Collect")
    tab.locator("#collect-run .st-chip", has_text=re.compile("/bad$")).click()
    expect(tab.locator("#collect-contents tbody em")).to_be_visible()


def test_what_is_typed_before_the_script_is_there_counts(tab: Page):
    open_tab(tab, "Collect")
    tab.locator("#collect-tasks textarea").fill("3")
    expect(tab.locator("#collect-command code")).to_contain_text("--tasks 3")
    held = []
    tab.route("**/collect.js*", lambda route: held.append(route))
    tab.reload()
    tab.get_by_role("tab", name="Collect", exact=True).click()
    for name, value in {"per_task": "2", "workers": "1", "name": "early"}.items():
        fill(tab, f"collect-{name}", value)
    while not held:  # it has not been asked for yet
        tab.wait_for_timeout(50)
    for route in held:
        route.continue_()
    for option in ("--per-task 2", "--workers 1", "runs/early", "--tasks 3"):
        expect(tab.locator("#collect-command code")).to_contain_text(option)
    expect(tab.locator("#collect-workers input")).to_have_value("1")
    expect(tab.locator("#collect-tasks textarea")).to_have_value("3")
    tab.unroute("**/collect.js*")
    tab.click("#collect-reset")


def test_a_collection_starts_and_stops(tab: Page):
    open_tab(tab, "Collect")
    for name, value in {"tasks": "0", "per_task": "2", "workers": "1", "name": "soups"}.items():
        fill(tab, f"collect-{name}", value)
    expect(tab.locator("#collect-command code")).to_contain_text("runs/soups")
    expect(tab.locator("#collect-command code")).to_contain_text("--tasks 0")
    fill(tab, "collect-inits", "0-42")
    expect(tab.locator("#collect-command")).to_contain_text("40-49 are for evaluation")
    expect(tab.locator("#collect-launch")).to_be_disabled()
    fill(tab, "collect-inits", "0-39")
    expect(tab.locator("#collect-command")).not_to_contain_text("for evaluation")
    tab.click("#collect-launch")
    pill(tab, "running", "collect")
    expect(tab.locator("#collect-run .st-tiles")).to_contain_text("of 2")
    press(tab, "stop", "collect")
    pill(tab, "stopped", "collect")
    expect(tab.locator("#collect-run [data-action=resume]")).to_be_visible()


@pytest.mark.parametrize("name", ["Train", "Collect"])
def test_a_narrow_page_does_not_overflow(tab: Page, name: str):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_role("button", name="More tabs").click()
    tab.get_by_role("button", name=name, exact=True).click()
    expect(
        tab.locator(f"#{name.lower()}-run h3, #{name.lower()}-run .st-empty").first
    ).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
