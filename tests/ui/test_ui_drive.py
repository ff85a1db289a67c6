"""Driving in a real browser, by real key events."""

from __future__ import annotations

import hashlib
from contextlib import closing

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import until

STATE = "window.studio.live.state"
ARMS = "arms => arms.map(arm => `${arm.dataset.x} ${arm.dataset.y}`)"
DRIVER = "#live-driver [data-value={}]"


def state(page: Page, field: str):
    return page.evaluate(f"{STATE}.{field}")


def picture(page: Page) -> str:
    """The agentview of the newest step: a picture is drawn a little after its step is told."""
    until(page, f"document.querySelector('[data-frame-step]').dataset.frameStep == {STATE}.step")
    url = page.evaluate("document.getElementById('live-agentview').toDataURL()")
    return hashlib.sha256(url.encode()).hexdigest()


def marks(page: Page, kind: str) -> list[str]:
    return page.evaluate(f"studio.live.marks.filter(m => m.kind === '{kind}').map(m => m.text)")


def give_back(page: Page) -> None:
    """Paused, the policy at the wheel: as the other tests expect it."""
    page.evaluate("studio.pause()")
    until(page, f"{STATE}.status !== 'running'")
    page.click(DRIVER.format("policy"))
    until(page, f"{STATE}.driver === 'policy'")


@pytest.fixture
def driven(page):
    """A page whose arm a person holds, at rest; given back afterwards."""
    page.keyboard.press("t")
    until(page, f"{STATE}.driver === 'human' && {STATE}.resting")
    yield page
    give_back(page)


def test_a_held_key_moves_and_its_release_stops(driven):
    step, before = state(driven, "step"), picture(driven)
    sent = driven.evaluate("studio.inputs().sent")
    driven.keyboard.down("d")
    driven.keyboard.down("d")  # the browser repeats a held key; nobody counts that
    until(driven, f"{STATE}.step >= {step + 4}")
    expect(driven.locator("[data-code=KeyD]")).to_have_class("held")
    driven.keyboard.up("d")
    until(driven, f"{STATE}.resting")
    assert driven.evaluate("studio.inputs().sent") == sent + 2
    after, rested = picture(driven), state(driven, "step")
    assert after != before
    driven.wait_for_timeout(500)
    assert state(driven, "step") == rested and picture(driven) == after
    assert state(driven, "status") == "running"


def test_a_window_that_loses_the_keys_lets_go(driven):
    driven.keyboard.down("w")
    until(driven, f"!{STATE}.resting")
    driven.evaluate("window.dispatchEvent(new Event('blur'))")
    expect(driven.locator("[data-code=KeyW]")).not_to_have_class("held")
    until(driven, f"{STATE}.resting")
    driven.keyboard.up("w")


def test_a_key_that_goes_up_unheard_beside_command_is_let_go(driven):
    held = driven.locator("[data-code=KeyD]")
    driven.keyboard.down("d")
    expect(held).to_have_class("held")
    driven.keyboard.down("Meta")
    driven.keyboard.up("Meta")
    expect(held).not_to_have_class("held")
    driven.keyboard.up("d")


def test_the_page_says_how_to_drive_on(driven):
    hint = driven.locator("#live-drive-hint")
    expect(hint).to_contain_text("Hold a key")
    driven.click("#live-reset")
    until(driven, f"{STATE}.status === 'paused' && {STATE}.step === 0")
    expect(hint).to_have_text("Paused: press space to drive.")
    driven.keyboard.press(" ")
    until(driven, f"{STATE}.status === 'running' && {STATE}.resting")
    expect(hint).to_contain_text("Hold a key")


def test_typing_never_moves_the_robot(driven):
    step, sent = state(driven, "step"), driven.evaluate("studio.inputs().sent")
    box = driven.locator("#live-instruction textarea, #live-instruction input").first
    box.click()
    driven.keyboard.type("was die f")
    driven.wait_for_timeout(500)
    assert state(driven, "step") == step and driven.evaluate("studio.inputs().sent") == sent
    assert state(driven, "driver") == "human"


def test_shortcuts_beside_the_driving_keys_are_off(driven):
    episode, init = state(driven, "episode"), state(driven, "scene.init")
    driven.keyboard.press("r")
    driven.keyboard.press("n")
    driven.wait_for_timeout(500)
    assert (state(driven, "episode"), state(driven, "scene.init")) == (episode, init)


def test_buttons_on_the_page_and_frames(driven):
    step = state(driven, "step")
    driven.locator("[data-code=KeyI]").hover()
    driven.mouse.down()
    until(driven, f"{STATE}.step >= {step + 2}")
    driven.mouse.up()
    until(driven, f"{STATE}.resting")
    drawn = []
    for frame in ("base", "camera"):
        driven.click(f"#live-frame [data-value={frame}]")
        expect(driven.locator("#live-gizmo")).to_have_attribute("data-frame", frame)
        drawn.append(sorted(driven.locator("#live-gizmo g").evaluate_all(ARMS)))
    assert drawn[0] != drawn[1]
    driven.keyboard.press("b")
    expect(driven.locator("#live-gizmo")).to_have_attribute("data-frame", "base")


def test_a_gamepad_moves_and_its_unplugging_lets_go(driven):
    driven.evaluate(
        """() => {
          const gamepad = { index: 0, axes: [0, -1, 0, 0], buttons: [] };
          navigator.getGamepads = () => [gamepad];
          window.dispatchEvent(Object.assign(new Event("gamepadconnected"), { gamepad }));
          window.unplug = () => {
            navigator.getGamepads = () => [null];
            window.dispatchEvent(Object.assign(new Event("gamepaddisconnected"), { gamepad }));
          };
        }"""
    )
    until(driven, f"!{STATE}.resting")
    driven.evaluate("window.unplug()")
    expect(driven.locator("#live-toasts")).to_contain_text("gamepad is gone")
    until(driven, f"{STATE}.resting")


def test_taking_over_and_giving_back(page):
    page.click("#live-run")
    until(page, "studio.live.plans.length >= 1")
    page.keyboard.press("t")
    until(page, f"{STATE}.driver === 'human'")
    plans = page.evaluate("studio.live.plans.length")
    page.keyboard.down("e")
    until(page, "studio.live.comparisons.length >= 1", 120)
    page.keyboard.up("e")
    expect(page.locator("#live-drive-energy")).to_contain_text("policy")
    page.keyboard.press("t")
    until(page, f"{STATE}.driver === 'policy' && studio.live.plans.length > {plans}")
    give_back(page)
    assert marks(page, "driver") == ["human", "policy"]
    until(
        page,
        "document.getElementById('live-trace-plot').layout?.shapes?.some(s => s.name === 'human')",
    )
    person = "document.getElementById('live-trace-plot').data?.at(-1)"
    until(page, f"{person}?.visible && {person}.y?.length >= 1")


def test_the_guard_asks_for_help_and_takes_an_answer(page):
    hardly = "{...studio.live.config.defaults.sampler, steps: 1, step_size: 0.01}"  # noise stays
    page.evaluate(f"studio.setAll('sampler', {hardly})")
    page.locator("#live-guard-plans").fill("2")
    page.check("#live-guard-on")
    until(page, f"{STATE}.guard.on && {STATE}.guard.plans === 2 && {STATE}.sampler.steps === 1")
    page.click("#live-run")
    banner = page.locator("#live-ask")
    expect(banner).to_be_visible(timeout=60_000)
    expect(banner).to_contain_text("2 plans in a row above")
    assert state(page, "status") == "paused" and page.evaluate("studio.live.plans.length") == 2
    page.click("#live-help-replan")
    until(page, f"{STATE}.help === '' || studio.live.plans.length >= 3")
    until(page, f"{STATE}.help !== '' && studio.live.plans.length === 4")  # two more above
    page.click("#live-help-take")
    until(page, f"{STATE}.driver === 'human' && {STATE}.status === 'running'")
    expect(banner).to_be_hidden()
    texts = marks(page, "help")
    assert [texts[1], texts[3]] == ["replan with 8 chains", "take over"]
    assert all(text.startswith("asks for help: ") for text in texts[::2])
    page.uncheck("#live-guard-on")
    until(page, f"!{STATE}.guard.on")
    give_back(page)


def test_a_number_is_typed_while_the_scene_runs(page):
    box = page.locator("#live-guard-plans")
    before = box.input_value()
    page.click("#live-run")
    until(page, f"{STATE}.status === 'running' && {STATE}.step > 0")
    box.press("Control+a")
    box.press("7")
    step = state(page, "step")
    until(page, f"{STATE}.step > {step + 4}")
    expect(box).to_have_value("7")
    box.press("Enter")
    until(page, f"{STATE}.guard.plans === 7")
    box.fill(before)
    box.press("Enter")
    until(page, f"{STATE}.guard.plans === {before}")
    page.click("#live-run")


def test_who_pauses_gets_the_next_scene_paused(page):
    """Even if the loop has not paused by then."""
    page.click("#live-run")
    until(page, f"{STATE}.status === 'running'")
    asked = page.evaluate(
        """() => {
          const { send } = WebSocket.prototype;
          const asked = [];
          WebSocket.prototype.send = function (text) {
            asked.push(JSON.parse(text).type);
            send.call(this, text);
          };
          for (const key of [" ", "n"]) {
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
          }
          WebSocket.prototype.send = send;
          return asked;
        }"""
    )
    assert asked == ["pause", "load"]
    until(page, f"{STATE}.scene.init === 41 && {STATE}.status === 'paused'")


def test_instructions_in_sequence(page):
    page.click("#live-sequence-edit summary")
    page.fill("#live-sequence-items", "reach for the can\n\n  lift the can ")
    page.click("#live-sequence-start")
    until(page, f"{STATE}.instruction === 'reach for the can'")
    items = page.locator("#live-sequence-now li")
    expect(items).to_have_count(2)
    expect(items.first).to_have_attribute("data-place", "now")
    page.click("#live-step")
    until(page, f"{STATE}.step === 1 && {STATE}.status === 'paused'")
    page.keyboard.press("m")
    until(page, f"{STATE}.instruction === 'lift the can'")
    expect(items.first).to_have_attribute("data-place", "done")
    assert marks(page, "instruction") == ["reach for the can", "lift the can"]
    page.click("#live-sequence-stop")
    expect(page.locator("#live-sequence-now")).to_be_hidden()


def test_two_tabs_on_one_arm(driven, ready):
    with closing(driven.context.new_page()) as other:
        other.goto(driven.url)
        ready(other, "running")
        expect(other.locator("#live-wheel")).to_contain_text("Another tab drives")
        expect(other.locator("#live-drive-body")).to_be_hidden()
        other.keyboard.press("n")
        other.click("#live-reset")
        expect(other.locator("#live-toasts")).to_contain_text("ask for the wheel")
        orbit = other.locator("#live-camera-orbit_horizontal input[type=range]")
        move = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }"
        orbit.evaluate(move, 30)
        expect(orbit).to_have_value("30")
        expect(orbit).to_have_value("0")  # refused
        driven.keyboard.press("w")  # at work: an idle driver would give way at once
        other.click("#live-wheel button")
        expect(driven.locator("#live-wheel")).to_contain_text("asks for the wheel")
        driven.click("#live-wheel button")
        expect(other.locator("#live-drive-body")).to_be_visible()
        expect(driven.locator("#live-wheel")).to_contain_text("Another tab drives")
        other.locator("#live-camera-distance input[type=range]").evaluate(move, 110)
        until(other, f"{STATE}.camera.distance === 110")
        assert state(other, "camera.orbit_horizontal") == 0
    expect(driven.locator("#live-wheel")).to_be_hidden()
