"""The Live page in a real browser, against the running app."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zipfile

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import TOKEN, until

STATE = "window.studio.live.state"


def pixels(page: Page, camera: str) -> str:
    url = page.evaluate(f"document.getElementById('live-{camera}').toDataURL()")
    return hashlib.sha256(url.encode()).hexdigest()


def state(page: Page, field: str):
    return page.evaluate(f"{STATE}.{field}")


def pause(page: Page) -> None:
    page.evaluate("studio.pause()")
    until(page, f"{STATE}.status !== 'running'")


def until_redrawn(page: Page, camera: str, before: str, seconds: float = 60) -> None:
    """Wait for another picture than `before`."""
    deadline = time.monotonic() + seconds
    while pixels(page, camera) == before:
        assert time.monotonic() < deadline, f"{camera}: the picture stays as it was"
        page.wait_for_timeout(50)


def set_slider(page: Page, elem_id: str, *values: float, of: str = " input[type=range]") -> None:
    """As a hand does: the browser's own input event, at each of the values on its way."""
    page.locator(f"#{elem_id}{of}").evaluate(
        """async (e, values) => {
          for (const value of values) {
            e.value = value;
            e.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise((done) => setTimeout(done)); // each is heard by itself
          }
        }""",
        values,
    )


def test_both_cameras_move_and_the_trace_grows(page):
    before = [pixels(page, c) for c in ("agentview", "wrist")]
    page.click("#live-run")
    until(page, "Number(document.querySelector('.st-trace').dataset.points) >= 3")
    pause(page)
    assert all(pixels(page, c) != b for c, b in zip(("agentview", "wrist"), before, strict=True))
    points = page.evaluate("document.getElementById('live-trace-plot').data[1].x.length")
    assert points == page.locator("#live-filmstrip button").count() >= 3


def test_an_older_picture_is_not_drawn_over_a_newer_one(page):
    """Two may be decoded at once; every third decoding is slow, and some fail."""
    page.evaluate(
        """() => {
          const decode = window.createImageBitmap;
          let count = 0;
          window.createImageBitmap = async (blob) => {
            const number = count++;
            if (number % 7 === 6) throw new Error("broken");
            if (number % 3 === 0) await new Promise((done) => setTimeout(done, 400));
            return decode(blob);
          };
          const stage = document.querySelector(".st-stage");
          window.drawn = [];
          new MutationObserver(() => drawn.push(Number(stage.dataset.frameStep)))
            .observe(stage, { attributeFilter: ["data-frame-step"] });
        }"""
    )
    page.click("#live-run")
    until(page, "drawn.length >= 12")
    pause(page)
    drawn = page.evaluate("drawn")
    assert drawn == sorted(drawn)


def test_no_plot_offers_to_send_data_away(page):
    expect(page.locator("#live-trace-plot .modebar-btn").first).to_be_attached()
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.dataset.title)")
    assert not [title for title in titles if "loud" in (title or "")]


def test_step_chunk_and_reset(page):
    page.click("#live-step")
    until(page, f"{STATE}.step === 1 && {STATE}.status === 'paused'")
    page.click("#live-chunk")
    until(page, f"{STATE}.step > 1 && {STATE}.status === 'paused'")
    page.click("#live-reset")
    until(page, f"{STATE}.step === 0 && {STATE}.status === 'paused'")
    expect(page.locator("#live-filmstrip button")).to_have_count(0)


def test_a_new_instruction_is_used_and_marked(page):
    page.click("#live-chunk")
    until(page, f"window.studio.live.plans.length >= 1 && {STATE}.status === 'paused'")
    box = page.locator("#live-instruction textarea, #live-instruction input").first
    box.fill("open the drawer")
    box.press("Enter")
    until(page, f"{STATE}.instruction === 'open the drawer'")
    page.click("#live-run")
    until(page, "window.studio.live.plans.at(-1)?.instruction === 'open the drawer'")
    pause(page)
    assert page.evaluate("window.studio.live.marks.map(m => m.kind)") == ["instruction"]
    until(
        page,
        "document.getElementById('live-trace-plot').layout?.annotations"
        "?.some(a => a.text.includes('open the drawer'))",
    )


def test_the_camera_moves_at_once_and_returns(page):
    before = pixels(page, "agentview")
    set_slider(page, "live-camera-orbit_horizontal", 30)
    until(page, f"{STATE}.camera.orbit_horizontal === 30")
    until(page, "document.querySelector('#live-pose-top .moved')")
    until_redrawn(page, "agentview", before)
    page.click("#live-camera-reset")
    until(page, f"{STATE}.camera.orbit_horizontal === 0")
    expect(page.locator("#live-camera-orbit_horizontal input[type=range]")).to_have_value("0")


def test_a_libero_plus_view_fills_the_sliders(page):
    page.click("#live-view-4")
    until(
        page,
        f"JSON.stringify({STATE}.camera) !== JSON.stringify(studio.live.config.defaults.camera)",
    )
    for field, value in state(page, "camera").items():
        shown = page.locator(f"#live-camera-{field} input[type=range]").input_value()
        assert float(shown) == pytest.approx(value)


def test_the_light_changes_at_once_and_returns(page):
    page.click("#live-disturbances >> text=Light, sensor, robot")
    before = pixels(page, "agentview")
    set_slider(page, "live-light-intensity", 40)
    until(page, f"{STATE}.light.intensity === 40")
    until_redrawn(page, "agentview", before)
    expect(page.locator("body")).to_have_class(re.compile("st-disturbed"))
    page.click("#live-light-reset")
    until(page, f"{STATE}.light.intensity === 100")
    expect(page.locator("#live-light-intensity input[type=range]")).to_have_value("100")
    expect(page.locator("body")).not_to_have_class(re.compile("st-disturbed"))


def test_noise_reaches_the_policy_alone_and_is_marked(page):
    page.click("#live-disturbances >> text=Light, sensor, robot")
    before = pixels(page, "agentview")
    page.click("#live-sensor-3")
    until(page, f"{STATE}.sensor.severity >= 5")
    kind = state(page, "sensor")["kind"].replace("_", " ")
    expect(page.locator("#live-sensor-kind input")).to_have_value(kind)
    until(page, "window.studio.live.marks.length >= 1")
    assert page.evaluate("window.studio.live.marks.map(m => m.kind)") == ["sensor"]
    # a scene that stands is drawn anew when its camera moves: there and back
    set_slider(page, "live-camera-orbit_horizontal", 30)
    until_redrawn(page, "agentview", before)
    moved = pixels(page, "agentview")
    page.click("#live-camera-reset")
    until_redrawn(page, "agentview", moved)
    assert pixels(page, "agentview") == before


def test_robot_start_and_layout_load_the_scene_anew(page):
    page.click("#live-disturbances >> text=Light, sensor, robot")
    episode = state(page, "episode")
    page.click("#live-robot-2")
    until(page, f"{STATE}.episode > {episode} && {STATE}.status === 'paused'")
    start = state(page, "scene")["robot"]
    assert start["offset"] == 0.2 and 101 <= start["direction"] <= 200
    page.evaluate("studio.layout('swap')")
    until(page, f"{STATE}.scene.layout === 'swap' && {STATE}.status === 'paused'")
    assert state(page, "scene")["robot"] == start
    episode = state(page, "episode")
    set_slider(page, "live-robot-offset", 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # loads the scene once
    until(page, f"{STATE}.scene.robot.offset === 0.5 && {STATE}.status === 'paused'")
    assert state(page, "episode") == episode + 1
    expect(page.locator("#live-layout input")).to_have_value("swapped (LIBERO-PRO)")
    page.click("#live-robot-reset")
    until(page, f"{STATE}.scene.robot.offset === 0 && {STATE}.status === 'paused'")


def test_sampler_edits_arrive_and_defaults_return(page):
    page.click("#live-sampler >> text=Sampler")
    page.locator("#live-sampler-step_size input").fill("0.1")
    until(page, f"{STATE}.sampler.step_size === 0.1")
    page.click("#live-sampler-reset")
    until(page, f"{STATE}.sampler.step_size === 0.22")
    expect(page.locator("#live-sampler-step_size input")).to_have_value("0.22")


def test_a_bad_sampler_value_is_told_and_not_sent_again(page):
    page.click("#live-sampler >> text=Sampler")
    box = page.locator("#live-sampler-step_size input")
    box.fill("99")
    expect(page.locator("#live-toasts")).to_contain_text("step_size must lie in")
    page.locator("#live-sampler-init_std input").fill("0.4")
    until(page, f"{STATE}.sampler.init_std === 0.4 && {STATE}.sampler.step_size === 0.22")
    expect(box).to_have_value("0.22")


def test_landscape_and_descent_of_a_clicked_plan(page):
    page.click("#live-chunk")
    until(page, f"window.studio.live.plans.length >= 1 && {STATE}.status === 'paused'")
    page.locator("#live-filmstrip button").first.click()
    page.locator("#live-landscape").scroll_into_view_if_needed()
    until(page, "document.getElementById('live-landscape-plot').data?.[0].z.length === 50")
    until(page, "document.querySelector('#live-landscape-plot .contourlayer path')")
    marks = page.locator("#live-landscape .st-reading [data-mark]")
    expect(marks).to_have_count(3)
    expect(marks.last).to_contain_text("expert, pick alphabet soup 1 · E")
    until(page, "document.getElementById('live-landscape-plot').data?.at(-1)?.name === 'expert'")
    page.locator("#live-slice-mode").get_by_text("3D").click()
    until(page, "document.getElementById('live-landscape-plot').data?.[0]?.type === 'surface'")
    page.locator("#live-descent").scroll_into_view_if_needed()
    until(page, "document.querySelector('.st-descent').dataset.k === '15'")
    page.click("#live-descent-play")
    until(page, "Number(document.querySelector('.st-descent').dataset.k) < 10")
    until(page, "document.querySelector('.st-descent').dataset.k === '15'")
    set_slider(page, "live-descent-chains", 4)
    chains = (
        "document.getElementById('live-descent-plot').data.filter(t => t.yaxis === 'y2').length"
    )
    until(page, f"{chains} === 6")  # four curves, the expert's level and the one that advances
    until(page, "document.querySelector('.st-descent').dataset.k === '15'")
    set_slider(page, "live-descent-k", 3, of="")
    page.evaluate("document.body.classList.toggle('st-on-tape')")  # no other theme
    page.click("#live-theme")
    layout = "document.getElementById('live-descent-plot').layout"
    wide = page.evaluate(f"JSON.stringify({layout}.xaxis2.domain)")
    page.set_viewport_size({"width": 600, "height": 900})
    until(page, f"JSON.stringify({layout}.xaxis2.domain) !== '{wide}'")
    page.set_viewport_size({"width": 1440, "height": 900})
    until(page, f"JSON.stringify({layout}.xaxis2.domain) === '{wide}'")
    assert page.locator(".st-descent").get_attribute("data-k") == "3"


def test_a_question_that_is_refused_leaves_no_older_answer(page):
    page.click("#live-chunk")
    until(page, f"window.studio.live.plans.length >= 1 && {STATE}.status === 'paused'")
    page.locator("#live-descent").scroll_into_view_if_needed()
    until(page, "document.querySelector('.st-descent').dataset.k === '15'")
    page.evaluate("studio.follow(true); studio.query({ dims: [1, 1], grid: 10 })")
    for kind in ("landscape", "descent"):
        pane = page.locator(f"#live-{kind}")
        pane.scroll_into_view_if_needed()
        expect(pane.locator(".st-empty")).to_contain_text("choose two different dimensions")
        expect(pane.locator(".main-svg, .st-reading li")).to_have_count(0)
        expect(pane.locator(".st-wait")).to_be_hidden()
    expect(page.locator(".st-player")).to_be_hidden()
    page.click("#live-chunk")
    until(page, "studio.live.selected === 1")  # the newest is followed all the same
    page.evaluate("studio.query({ dims: [0, 1] })")
    page.locator("#live-descent").scroll_into_view_if_needed()
    until(page, "document.querySelector('.st-descent').dataset.k === '15'")
    page.evaluate("studio.follow(false)")


def test_at_rest_the_newest_plan_is_looked_at_until_a_person_chooses_one(page):
    cells, selected = page.locator("#live-filmstrip button"), "studio.live.selected"

    def chunk(plans: int) -> None:
        page.click("#live-chunk")
        until(page, f"studio.live.plans.length === {plans} && {STATE}.status === 'paused'")

    for newest in (0, 1):
        chunk(newest + 1)
        until(page, f"{selected} === {newest}")
        expect(page.locator("#live-verdict dl")).to_contain_text(f"{newest} · selected")
    cells.first.click()
    chunk(3)
    assert page.evaluate(selected) == 0
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(selected) == 1
    expect(cells.nth(1)).to_be_focused()
    assert (
        page.evaluate("document.querySelectorAll('#live-filmstrip [tabindex=\"0\"]').length") == 1
    )
    cells.nth(1).evaluate("cell => (window.probe = cell)")
    set_slider(page, "live-k", 2.5, of="")
    until(page, "studio.live.k === 2.5")
    assert page.evaluate("document.contains(window.probe)")  # the strip stays as it is
    set_slider(page, "live-k", 1, of="")
    cells.nth(1).click()  # once more: nothing is chosen
    chunk(4)
    until(page, f"{selected} === 3")


def test_a_reload_finds_the_same_episode(page, ready):
    page.click("#live-chunk")
    until(page, f"{STATE}.step > 0 && {STATE}.status === 'paused'")
    set_slider(page, "live-camera-distance", 120)
    until(page, f"{STATE}.camera.distance === 120")
    step, plans = state(page, "step"), page.evaluate("studio.live.plans.length")
    page.reload()
    ready(page)
    assert state(page, "step") == step
    assert page.locator("#live-filmstrip button").count() == plans
    expect(page.locator("#live-camera-distance input[type=range]")).to_have_value("120")


def test_another_task_of_another_suite(page):
    page.locator("#live-suite input").click()
    page.get_by_role("option", name="libero_goal").click()
    page.locator("#live-task input").click()
    page.get_by_role("option").nth(3).click()
    page.evaluate(
        """() => {
          const overlay = document.getElementById("live-overlay");
          window.changes = [];
          new MutationObserver((found) => changes.push(...found))
            .observe(overlay, { childList: true });
          new MutationObserver((found) => changes.push(...found))
            .observe(overlay.querySelector("[role=status]"), { childList: true });
        }"""
    )
    page.click("#live-load")
    expect(page.locator("#live-overlay")).to_contain_text("Loading the scene")
    until(page, f"{STATE}.scene.suite === 'libero_goal' && {STATE}.status === 'paused'", 120)
    assert page.evaluate("changes.length") <= 1  # the spinner turns on, and is told once
    assert state(page, "scene.task") == 3
    expected = page.evaluate("studio.live.config.suites.libero_goal[3]")
    assert state(page, "instruction") == expected
    box = page.locator("#live-instruction textarea, #live-instruction input").first
    expect(box).to_have_value(expected)


def test_keyboard_runs_and_keeps_out_of_text(page):
    page.keyboard.press("s")
    until(page, f"{STATE}.step === 1 && {STATE}.status === 'paused'")
    page.locator("#live-instruction textarea, #live-instruction input").first.click()
    page.keyboard.type("s c r n ?")
    page.wait_for_timeout(600)
    assert (state(page, "step"), state(page, "scene.init")) == (1, 40)
    expect(page.locator("#live-legend")).to_be_hidden()
    page.locator("#live-camera-distance input[type=range]").click()
    page.keyboard.press(" ")  # a slider has no use for it
    until(page, f"{STATE}.status === 'running'")
    page.keyboard.press(" ")
    until(page, f"{STATE}.status === 'paused'")
    page.locator("h3").first.click()
    page.keyboard.press("?")
    expect(page.locator("#live-legend")).to_be_visible()


def test_a_paused_scene_stays_so_however_fast_others_are_asked_for(page):
    init = state(page, "scene.init")
    for _ in range(4):  # most of them while one loads
        page.keyboard.press("n")
    until(page, f"{STATE}.scene.init > {init}")
    page.wait_for_timeout(3000)
    until(page, f"{STATE}.status === 'paused'")
    assert state(page, "step") == 0


def test_policy_view_and_theme(page):
    page.click("#live-chunk")
    until(page, f"{STATE}.step > 0 && {STATE}.status === 'paused'")
    blank = pixels(page, "policy-agentview")
    page.check("#live-policy-view")
    page.click("#live-chunk")
    until_redrawn(page, "policy-agentview", blank)
    dark = page.evaluate("document.body.classList.contains('dark')")
    page.click("#live-theme")
    assert page.evaluate("document.body.classList.contains('dark')") != dark


def test_the_episode_can_be_kept(page, tmp_path):
    page.click("#live-chunk")
    until(page, f"{STATE}.step > 0 && {STATE}.status === 'paused'")
    for kind in ("zip", "mp4"):
        button = page.locator(f"#live-export-{kind}")
        button.evaluate(
            "b => new MutationObserver(() => { b.dataset.rested ??= b.disabled })"
            ".observe(b, { attributes: true, attributeFilter: ['disabled'] })"
        )
        with page.expect_download() as download:
            button.click()
        expect(button).to_be_enabled()
        assert button.get_attribute("data-rested") == "true"  # while the file was in the making
        download.value.save_as(tmp_path / f"episode.{kind}")
        assert download.value.suggested_filename.endswith(f".{kind}")
    with zipfile.ZipFile(tmp_path / "episode.zip") as archive:
        lines = next(n for n in archive.namelist() if n.endswith(".jsonl"))
        assert [json.loads(line) for line in archive.read(lines).splitlines()]
    assert (tmp_path / "episode.mp4").stat().st_size > 1000


def test_a_download_that_fails_is_told(page):
    page.route("**/live/export/*", lambda route: route.fulfill(body="half"))
    cut_off = "() => { Response.prototype.blob = async () => { throw new TypeError('cut off') } }"
    page.evaluate(cut_off)
    page.click("#live-export-mp4")
    expect(page.locator("#live-toasts")).to_contain_text("It could not be downloaded")
    expect(page.locator("#live-export-mp4")).to_be_enabled()


def test_plots_are_drawn_once_their_library_comes(chromium, address):
    with chromium.new_context() as context:
        context.add_init_script(f"sessionStorage.setItem('studio-token', '{TOKEN}')")
        context.route("**/plotly.min.js*", lambda route: route.abort())
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#live-toasts")).to_contain_text("plotly.js could not", timeout=60_000)
        context.unroute("**/plotly.min.js*")
        page.wait_for_timeout(5000)
        page.click("#live-theme")
        expect(page.locator("#live-trace-plot .main-svg").first).to_be_attached()


def test_a_narrow_page_has_one_column_and_no_overflow(page):
    page.get_by_role("tab", name="Train").click()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    page.get_by_role("tab", name="Live").click()
    plot = "document.getElementById('live-trace-plot')"
    drawn = f"{plot}.querySelector('.main-svg')?.clientWidth"
    until(page, f"Math.abs({drawn} - {plot}.clientWidth) < 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    main, controls = (page.locator(s).bounding_box() for s in ("#live-main", "#live-controls"))
    assert controls["y"] > main["y"] + main["height"] - 1


def test_a_lost_connection_is_told_and_comes_back(page):
    told = """() => new Promise((done) => {
        const banner = document.getElementById("live-banner");
        new MutationObserver(() => banner.hidden || done(true))
            .observe(banner, { attributeFilter: ["hidden"] });
        studio.disconnect();
    })"""
    assert page.evaluate(told)  # for half a second
    expect(page.locator("#live-banner")).to_be_hidden(timeout=15_000)
    assert state(page, "status") == "paused"
