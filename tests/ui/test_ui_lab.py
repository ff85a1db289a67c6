"""The OOD lab in a real browser: runs fill the study, k walks along the ROC, episodes replay."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
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
    """A workspace with a nominal and a perturbed run of known energies, and two sweeps.

    The newest runs have failed at once, the oldest has more chains: none is compared by itself.
    """
    folder = tmp_path_factory.mktemp("lab")
    nominal, _ = write_runs(folder / "runs")
    settings = folder / "runs" / "eight" / results.SETTINGS
    shutil.copytree(nominal, settings.parent)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chains": 8}))
    os.utime(settings, (1, 1))
    record = {"kind": "evaluate", "started": 4e9, "ended": 4e9, "exit_code": 2}
    for i in range(6):
        (folder / "runs" / f"failed-{i}").mkdir()
        (folder / "runs" / f"failed-{i}" / "job.json").write_text(json.dumps(record))
    for name, shift in (("low", 0), ("high", 100)):
        sweep = sweep_of(camera_points("x", (-10, 10), (80, 120), 3), "camera")
        for point in sweep["points"]:
            point["final_energy"] += shift
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "sweep.json").write_text(json.dumps(sweep))
    return folder


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[str]:
    with app(SHIPPED, folder, "--paused", "--sessions", "8", "--linger", "5") as address:
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
    with tab.expect_response(lambda answer: "moved=true" in answer.url):
        set_k(tab, 5)
    tab.wait_for_function(f"{PLOT.format('roc')}.data[2].x[0] === 0")
    assert tab.evaluate(f"{PLOT.format('episodes')}.data.length") == 6
    assert tab.evaluate(f"{PLOT.format('histogram')}.layout.shapes.length") == 2


def test_runs_are_found_and_tables_sorted(tab: Page):
    open_lab(tab)
    names = tab.locator("#lab-runs tbody .st-name")
    expect(names.nth(8)).to_be_visible()
    tab.get_by_label("Filter the runs").fill("camera abc")
    expect(names).to_have_count(0)
    tab.get_by_label("Filter the runs").fill("camera elsewhere")
    expect(names).to_have_text(["moved"])
    expect(tab.locator("#lab-study .st-matrix")).to_be_visible()  # the ticks stay
    tab.get_by_label("Filter the runs").fill("")
    row = tab.locator("#lab-runs tr[data-name=nominal]")
    row.press("Space")
    expect(row).to_have_attribute("aria-selected", "true")
    tab.locator("#lab-tables [data-table=operating]").click()
    first = tab.locator("#lab-tables tbody tr td").first
    expect(first).to_have_text("0.2 σ")
    tab.locator("#lab-tables").get_by_role("button", name="threshold").click()
    expect(first).to_have_text("3.0 σ")  # the highest
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.get_by_role("button", name="Copy as CSV").click()
    expect(tab.locator("#live-toasts")).to_contain_text("Copied.")
    lines = list(csv.reader(tab.evaluate("navigator.clipboard.readText()").splitlines()))
    assert lines[0][:2] == ["k", "threshold"] and lines[1][0] == "3.0 σ" and len(lines) == 10


def test_figures_of_an_earlier_question_are_dimmed(tab: Page):
    open_lab(tab)
    grid, table = tab.locator("#lab-study .st-grid"), tab.locator("#lab-tables .st-scroll")
    bend(tab, "/lab/", "new Promise(() => {})")
    tab.locator("#lab-study [data-field=difficulty]").select_option("5")
    for place in (grid, table):
        expect(place).to_have_attribute("aria-busy", "true")
    straighten(tab)
    tab.locator("#lab-study [data-field=difficulty]").select_option("")
    for place in (grid, table):
        expect(place).to_have_attribute("aria-busy", "false")


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
    report = tab.locator("#lab-study [data-action=report]")
    expect(report).to_have_text("Report of 1 run")
    report.click()
    expect(tab.locator("#live-toasts")).to_contain_text("too few")
    tab.locator("#lab-runs tr[data-name=nominal] input").uncheck()
    expect(tab.locator("#lab-study .st-empty")).to_be_hidden()
    expect(tab.locator("#lab-study .st-keep")).to_contain_text("Tick runs to compare")
    for action in ("csv", "report", "calibrate"):
        expect(tab.locator(f"#lab-study [data-action={action}]")).to_be_disabled()
    tab.locator("#lab-runs tr[data-name=nominal] input").check()
    tab.locator("#lab-runs tr[data-name=moved] input").check()
    expect(tab.locator("#lab-study .st-matrix")).to_be_visible()


def test_a_form_says_how_many_episodes_it_asks_for(tab: Page):
    open_lab(tab)
    told, launch = tab.locator("#lab-command .st-planned"), tab.locator("#evaluate-launch")
    expect(told).to_have_text("50 episodes")
    fill(tab, "lab-inits", "")
    expect(tab.locator("#lab-inits :is(input, textarea)")).to_have_attribute("placeholder", "40-44")
    fill(tab, "lab-inits", "50")
    expect(tab.locator("#lab-command code")).to_contain_text("initial states 0 to 49")
    expect(launch).to_be_disabled()
    fill(tab, "lab-inits", "0-1")
    expect(told).to_have_text("20 episodes")
    expect(launch).to_be_enabled()
    tab.locator("#lab-suite .token-remove").first.click()
    expect(tab.locator("#lab-command code")).to_have_text("choose at least one suite")
    expect(told).to_be_empty()
    expect(launch).to_be_disabled()


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
    expect(tab.locator("#sweep-plot[data-points='9']")).to_be_visible()
    other = "low" if chosen.inner_text() == "high" else "high"
    bend(tab, "lab/sweep", "new Promise(() => {})")
    tab.locator(f"#sweep-map [data-name={other}]").click()
    expect(chosen).to_have_text(other)
    expect(tab.locator("#sweep-plot")).to_be_hidden()
    straighten(tab)
    tab.locator("#sweep-map select").select_option("energy_gap")
    expect(tab.locator("#sweep-plot")).to_be_visible()
    tab.locator("#sweep-map select").select_option("final_energy")
    first = 100 if other == "high" else 0
    tab.wait_for_function(f"document.getElementById('sweep-plot').data?.[0]?.z[0][0] === {first}")


def test_an_episode_is_told_and_then_played_again_in_live(tab: Page):
    wait_until_ready(tab)
    open_lab(tab)
    scene, state = PLOT.format("episodes"), "studio.live.state"
    before = tab.evaluate(f"{state}.episode")
    chosen = tab.evaluate(f"""() => {{
        const place = {scene};
        const moved = place.data.flatMap(t => t.customdata)
            .find(e => JSON.parse(e).camera?.orbit_horizontal);
        place.emit("plotly_click", {{ points: [{{ customdata: moved }}] }});
        return JSON.parse(moved);
    }}""")
    picked = tab.locator("#lab-study .st-picked")
    expect(picked).to_contain_text(f"{chosen['instruction']} · init {chosen['scene']['init']}")
    expect(picked).to_contain_text("another checkpoint, eb-vla-tiny")
    tab.wait_for_function(f"{scene}.data.some(t => t.selectedpoints?.length === 1)")
    assert tab.evaluate(f"{state}.episode") == before
    told = picked.locator("p").inner_text()
    picked.get_by_role("button", name="Next episode").press("Enter")
    expect(picked.locator("p")).not_to_have_text(told)
    picked.get_by_role("button", name="Previous episode").press("Enter")
    expect(picked.locator("p")).to_have_text(told)
    picked.get_by_role("button", name="Play in Live").press("Enter")
    task, orbit = chosen["scene"]["task"], chosen["camera"]["orbit_horizontal"]
    seen = f"{state}?.scene.task === {task} && {state}.camera.orbit_horizontal === {orbit}"
    tab.wait_for_function(f"{seen} && studio.live.plans.length > 0", timeout=SLOW)
    expect(tab.locator("#live-stage")).to_be_visible()


def test_a_study_is_kept_as_csv_and_report(tab: Page):
    open_lab(tab)
    for action, name in (("csv", "plans"), ("report", "report")):
        button = tab.locator(f"#lab-study [data-action={action}]")
        expect(button).to_contain_text("of 2 runs")
        with tab.expect_download() as download:
            button.click()
        assert re.match(rf"{name}-abc-\d+-\d+-\d+\.", download.value.suggested_filename)
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
    runs = tab.locator("#lab-study .st-keep")
    expect(runs).to_contain_text("of the nominal runs: nominal")
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
