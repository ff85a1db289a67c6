"""The OOD lab in a real browser: runs fill the study, k walks along the ROC, episodes replay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio import results
from studio.sweep import camera_points
from tests.ui.conftest import SHIPPED, app, wait_until_ready, watched_tab
from tests.ui.test_train import UNREACHED, bend, fill, open_tab, straighten
from tests.unit.test_lab import sweep_of, write_runs

SLOW = 300_000  # ms: an evaluation loads a model and a simulator before its first episode
PLOT = "document.getElementById('lab-plot-{}')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A workspace with a nominal and a perturbed run of known energies, and two sweeps."""
    folder = tmp_path_factory.mktemp("lab")
    write_runs(folder / "runs")
    for name, shift in (("low", 0), ("high", 100)):
        sweep = sweep_of(camera_points("x", (-10, 10), (80, 120), 3), "camera")
        for point in sweep["points"]:
            point["final_energy"] += shift
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "sweep.json").write_text(json.dumps(sweep))
    return folder


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[str]:
    with app(SHIPPED, folder, "--paused", "--sessions", "8") as address:
        yield address


@pytest.fixture
def tab(chromium: Browser, studio: str) -> Iterator[Page]:
    with watched_tab(chromium, studio) as tab:
        tab.set_default_timeout(120_000)
        tab.goto(studio)
        yield tab


def open_lab(tab: Page) -> None:
    open_tab(tab, "OOD lab")
    expect(tab.locator("#lab-study [data-episodes='110']")).to_be_visible(timeout=SLOW)
    tab.wait_for_function(f"{PLOT.format('roc')}?.data?.length === 3", timeout=SLOW)


def set_k(tab: Page, k: float) -> None:
    tab.locator("#lab-study [data-field=k]").fill(str(k))
    expect(tab.locator("#lab-study .st-slide output")).to_have_text(f"{k:g}")


def caught(tab: Page) -> int:
    return int(tab.locator("#lab-study .st-matrix td b").first.inner_text())


def test_the_threshold_walks_along_the_roc(tab: Page):
    open_lab(tab)
    set_k(tab, -2)
    tab.wait_for_function(f"{PLOT.format('roc')}.data[2].x[0] > 0.5")
    assert caught(tab) == 60
    set_k(tab, 5)
    tab.wait_for_function(f"{PLOT.format('roc')}.data[2].x[0] === 0")
    assert tab.evaluate(f"{PLOT.format('histogram')}.layout.shapes.length") == 2


def test_filters_and_scores_change_what_is_compared(tab: Page):
    open_lab(tab)
    tab.locator("#lab-study [data-field=difficulty]").select_option("5")
    expect(tab.locator("#lab-study [data-episodes='110']")).to_have_count(0)
    assert int(tab.locator("#lab-study .st-study").get_attribute("data-episodes")) > 50
    tab.locator("#lab-study [data-field=difficulty]").select_option("")
    tab.locator("#lab-study [data-field=suite]").select_option("libero_90")
    expect(tab.locator("#lab-study [data-field=task] option")).to_have_count(91)
    tab.locator("#lab-study [data-field=suite]").select_option("")
    tab.locator("#lab-study [data-field=score]").select_option("energy_gap")
    tab.wait_for_function(
        f"{PLOT.format('histogram')}.layout.xaxis.title.text.startsWith('energy gap')"
    )
    for name in ("groups", "scores", "success", "failure", "operating"):
        tab.locator(f"#lab-tables [data-table={name}]").click()
        expect(tab.locator("#lab-tables .st-scroll")).to_be_visible()
    expect(tab.locator("#lab-tables .st-scroll")).to_contain_text("84.5%")
    tab.reload()
    open_lab(tab)
    expect(tab.locator("#lab-study [data-field=score]")).to_have_value("energy_gap")
    tab.locator("#lab-study [data-field=score]").select_option("final_energy")


def test_one_run_alone_asks_for_the_other_side(tab: Page):
    open_lab(tab)
    tab.locator("#lab-runs tr[data-name=moved] input").uncheck()
    expect(tab.locator("#lab-study .st-empty")).to_contain_text("50 nominal and 0 perturbed")
    few = "Promise.resolve(Response.json({ error: 'too few' }, { status: 400 }))"
    bend(tab, "report.html", few)
    tab.locator("#lab-runs [data-action=report]").click()
    expect(tab.locator("#live-toasts")).to_contain_text("too few")
    tab.locator("#lab-runs tr[data-name=nominal] input").uncheck()
    expect(tab.locator("#lab-study .st-empty")).to_be_hidden()
    tab.locator("#lab-runs tr[data-name=nominal] input").check()
    tab.locator("#lab-runs tr[data-name=moved] input").check()
    expect(tab.locator("#lab-study .st-matrix")).to_be_visible()


def test_what_was_not_answered_is_asked_again(tab: Page):
    open_lab(tab)
    bend(tab, "lab/study", UNREACHED)
    set_k(tab, 0.5)
    expect(tab.locator("#lab-study .st-empty")).to_have_text(re.compile(r"does not answer.*\?$"))
    straighten(tab)
    expect(tab.locator("#lab-study .st-matrix")).to_be_visible()
    set_k(tab, 1)


def test_a_map_is_of_the_chosen_sweep(tab: Page):
    open_lab(tab)
    chosen = tab.locator("#sweep-map .st-head h3")
    other = "low" if chosen.inner_text() == "high" else "high"
    expect(tab.locator("#sweep-plot[data-points='9']")).to_be_visible()
    bend(tab, "lab/sweep", "new Promise(() => {})")
    tab.locator(f"#sweep-map [data-name={other}]").click()
    expect(chosen).to_have_text(other)
    expect(tab.locator("#sweep-plot")).to_be_hidden()
    straighten(tab)
    tab.locator("#sweep-map select").select_option("energy_gap")
    expect(tab.locator("#sweep-plot")).to_be_visible()
    tab.locator("#sweep-map select").select_option("final_energy")
    first = 100 if other == "high" else 0
    tab.wait_for_function(f"document.getElementById('sweep-plot').data[0].z[0][0] === {first}")


def test_an_episode_is_played_again_in_live(tab: Page):
    open_lab(tab)
    scene, state = PLOT.format("episodes"), "studio.live.state"
    chosen = tab.evaluate(f"""() => {{
        const place = {scene};
        const moved = place.data.flatMap(t => t.customdata).map(JSON.parse)
            .find(e => e.camera && e.camera.orbit_horizontal);
        place.emit("plotly_click", {{ points: [{{ customdata: JSON.stringify(moved) }}] }});
        return moved;
    }}""")
    task, orbit = chosen["scene"]["task"], chosen["camera"]["orbit_horizontal"]
    seen = f"{state}?.scene.task === {task} && {state}.camera.orbit_horizontal === {orbit}"
    tab.wait_for_function(f"{seen} && studio.live.plans.length > 0", timeout=SLOW)
    expect(tab.locator("#live-stage")).to_be_visible()


def test_a_study_is_kept_as_csv_and_report(tab: Page):
    open_lab(tab)
    for action, name in (("csv", "episodes.csv"), ("report", "report.html")):
        with tab.expect_download() as download:
            tab.locator(f"#lab-runs [data-action={action}]").click()
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).stat().st_size > 10_000
    with tab.expect_download() as download:
        tab.locator("#lab-study figure[data-plot=roc] [data-save=svg]").click()
    assert Path(download.value.path()).read_text().startswith("<svg")


def test_a_calibration_is_replaced_after_a_question(tab: Page):
    level = {"mu": -2.5, "sigma": 1.5, "episodes": 3}
    answer = {**level, "checkpoint": "x", "before": {**level, "episodes": 150}}
    sent = []

    def told(route):
        sent.append(route.request.post_data_json["replace"])
        route.fulfill(json=answer if not sent[-1] else {**level, "checkpoint": "x", "used": True})

    open_lab(tab)
    tab.route("**/lab/calibrate", told)
    runs = tab.locator("#lab-runs")
    runs.locator("[data-action=calibrate]").click()
    expect(runs).to_contain_text("Replace μ −2.50, σ 1.50 of 150 episodes by μ −2.50")
    runs.locator("[data-action=spare]").click()
    expect(runs.locator("[data-action=replace]")).to_have_count(0)
    runs.locator("[data-action=calibrate]").click()
    runs.locator("[data-action=replace]").click()
    expect(tab.locator("#live-toasts")).to_contain_text("x is calibrated over 3 episodes")
    assert sent == [False, False, True]


def test_the_tour_needs_one_key(tab: Page):
    wait_until_ready(tab)
    tab.click("#live-tour")
    card = tab.locator("#live-tour-card")
    expect(card).to_contain_text("A nominal episode")
    tab.wait_for_function("studio.live.plans.length > 0", timeout=SLOW)
    tab.keyboard.press("ArrowRight")
    expect(card).to_contain_text("The camera moves")
    tab.wait_for_function("studio.live.state.camera.orbit_horizontal === 45", timeout=SLOW)
    orbit = tab.locator("#live-camera-orbit_horizontal input[type=range]")
    expect(orbit).to_have_value("45")  # the widgets say what the tour did
    tab.keyboard.press("PageDown")
    expect(card).to_contain_text("Inside one plan")
    tab.wait_for_function("studio.live.state.status === 'paused'", timeout=SLOW)
    tab.keyboard.press("ArrowRight")
    expect(card).to_contain_text("Other words")
    tab.wait_for_function(
        "studio.live.marks.some(mark => mark.kind === 'instruction')", timeout=SLOW
    )
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#lab-study")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(card).to_have_count(0)


def test_a_narrow_page_does_not_overflow(tab: Page):
    tab.set_viewport_size({"width": 390, "height": 844})
    open_lab(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_evaluation_and_a_sweep_from_launch_to_figure(tab: Page, folder: Path):
    open_lab(tab)
    for name, value in {"tasks": "0", "inits": "40", "workers": "1", "name": "real"}.items():
        fill(tab, f"lab-{name}", value)
    expect(tab.locator("#lab-command code")).to_contain_text("runs/real")
    expect(tab.locator("#lab-command code")).to_contain_text("--tasks 0")
    tab.click("#evaluate-launch")
    expect(tab.locator("#lab-runs .st-head .st-pill")).to_have_text("finished", timeout=SLOW)
    expect(tab.locator("#lab-runs .st-tiles")).to_contain_text("1 of 1")
    (row,) = results.read_rows(folder / "runs" / "real")
    assert row["outcome"] in ("success", "timeout") and row["final_energy"]

    tab.get_by_role("button", name="New sweep").click()
    for name, value in {"size": "2", "plans": "1", "name": "around"}.items():
        fill(tab, f"sweep-{name}", value)
    expect(tab.locator("#sweep-command code")).to_contain_text("--size 2")
    tab.click("#sweep-launch")
    expect(tab.locator("#sweep-plot[data-points='4']")).to_be_visible(timeout=SLOW)
    found = json.loads((folder / "runs" / "around" / "sweep.json").read_text())
    heat = tab.evaluate("document.getElementById('sweep-plot').data[0].z.flat()")
    energies = [point["final_energy"] for point in found["points"]]
    assert heat == pytest.approx(energies, rel=1e-4)
