"""The page as Gradio sees it: forms follow their dataclasses and nothing reaches the queue."""

from __future__ import annotations

import re
from dataclasses import fields
from types import SimpleNamespace

import gradio as gr
import pytest

from models.config import SAMPLER_BOUNDS, SamplerConfig
from studio.events import (
    CAMERA_BOUNDS,
    LIGHT_BOUNDS,
    MAX_CHAINS,
    ROBOT_BOUNDS,
    SENSOR_BOUNDS,
    CameraPerturbation,
    LightPerturbation,
    RobotStart,
    SensorNoise,
)
from studio.static import FOLDER
from studio.ui.page import LAUNCH, build
from studio.ui.widgets import Field, form


@pytest.fixture(scope="module")
def studio() -> SimpleNamespace:
    view = {f.name: f.default for f in fields(CameraPerturbation)} | {"difficulty": 3}
    suites = {"libero_object": ["pick up the soup", "pick up the milk"], "libero_90": ["open it"]}
    return SimpleNamespace(
        suites=suites,
        checkpoint={"horizon": 6},
        layouts={"libero_object": ["libero", "swap"], "libero_90": ["libero"]},
        views=lambda suite, task: [view] * (task + 1),
    )


@pytest.fixture(scope="module")
def page(studio) -> gr.Blocks:
    return build(studio)


def widgets(page: gr.Blocks) -> dict[str, gr.components.Component]:
    return {b.elem_id: b for b in page.blocks.values() if getattr(b, "elem_id", None)}


@pytest.mark.parametrize(
    "group, default, bounds",
    [
        ("sampler", SamplerConfig(), SAMPLER_BOUNDS),
        ("camera", CameraPerturbation(), CAMERA_BOUNDS),
        ("light", LightPerturbation(), LIGHT_BOUNDS),
        ("sensor", SensorNoise(), SENSOR_BOUNDS),
        ("robot", RobotStart(), ROBOT_BOUNDS),
    ],
)
def test_every_field_has_a_widget_with_its_default_and_bounds(page, group, default, bounds):
    found = widgets(page)
    for field in fields(default):
        widget = found[f"live-{group}-{field.name}"]
        assert widget.value == getattr(default, field.name)
        if isinstance(widget, gr.Dropdown):
            assert tuple(value for _, value in widget.choices) == bounds[field.name]
        else:
            assert (widget.minimum, widget.maximum) == bounds[field.name]


@pytest.mark.parametrize("tab", ["train", "collect"])
def test_every_field_says_what_it_is(page, tab):
    found = widgets(page)
    named = found[f"{tab}-bridge"].props["config"]["widgets"]
    for name in named:
        info = found[name.replace(".", "-")].info
        assert re.fullmatch(r"[A-Z].*[^.]\.", info), (name, info)
        assert len(info) < 150, (name, info)
    assert len(named) > 10


@pytest.mark.parametrize("tab", ["train", "collect"])
def test_an_arrow_key_changes_a_number_a_little(page, tab):
    boxes = [w for w in widgets(page).values() if (w.elem_id or "").startswith(f"{tab}-")]
    boxes = [w for w in boxes if isinstance(w, gr.Number) and w.value is not None]
    assert len(boxes) >= 5
    for box in boxes:
        lowest = box.minimum or 0
        steps = (box.value - lowest) / box.step
        assert steps == pytest.approx(round(steps)), box.elem_id  # counted from the lowest
        near = [value for value in (box.value - box.step, box.value + box.step) if value >= lowest]
        assert any(value <= (box.maximum or value) for value in near), box.elem_id
        if box.value % 1:
            assert box.step <= 0.1, box.elem_id


def test_the_bounds_of_the_figures_are_those_of_model_and_server(page):
    found = widgets(page)
    assert found["live-slice-timestep"].maximum == 6
    assert found["live-descent-chains"].maximum == MAX_CHAINS


def test_listeners_run_in_the_browser_and_are_no_public_interface(page):
    listeners = list(page.fns.values())
    assert listeners
    assert all(listener.fn is None and listener.js for listener in listeners)
    assert all(listener.api_visibility == "private" for listener in listeners)


def test_the_configuration_names_every_task_and_view(page):
    config = widgets(page)["live-bridge"].props["config"]
    assert list(config["suites"]) == ["libero_object", "libero_90"]
    assert [len(v) for v in config["views"]["libero_object"]] == [1, 2]
    assert config["views"]["libero_90"][0][0][-1] == 3  # difficulty comes last
    assert [name for _, name in config["layouts"]["libero_object"]] == ["libero", "swap"]
    for group, default in config["defaults"].items():
        presets = config["presets"].get(group, [])
        assert all(len(preset) == len(default) + 1 for preset in presets)  # and the difficulty
        assert {preset[-1] for preset in presets} in (set(), {1, 2, 3, 4, 5})
    assert "camera.fov" in config["widgets"] and "sampler.steps" in config["widgets"]


def test_a_field_without_a_look_is_noticed():
    with gr.Blocks(), pytest.raises(KeyError):
        form("sampler", SamplerConfig(), SAMPLER_BOUNDS, {"steps": Field("K")})


def test_a_studio_for_everyone_says_on_each_tab_what_its_visitors_can_t_do(studio):
    why = "It is its owner's."
    page = build(studio, why)
    notes = [b.value for b in page.blocks.values() if "st-notice" in str(getattr(b, "value", ""))]
    assert len(notes) == 3 and all("It is its owner&#x27;s." in note for note in notes)
    assert widgets(page)["live-bridge"].props["config"]["owners"] == why


def test_a_studio_of_one_s_own_says_nothing_of_the_kind(page):
    assert widgets(page)["live-bridge"].props["config"]["owners"] == ""
    assert not any("st-notice" in str(getattr(b, "value", "")) for b in page.blocks.values())


def test_the_page_asks_no_other_machine():
    assert "http" not in LAUNCH["head"]
    assert not LAUNCH["run_history"]


def test_coloured_words_can_be_read():
    """WCAG AA for small text: 4.5:1 on cards and on the page, in both themes."""
    colors = {}
    for block in re.findall(r"\{(.*?)\}", (FOLDER / "live.css").read_text(), re.S)[:2]:
        colors |= dict(re.findall(r"--st-(\w+): (#\w{6});", block))  # dark changes some of light
        for word in ("ink", "muted", "in", "out", "success", "error"):
            for ground in ("card", "page"):
                assert contrast(colors[word], colors[ground]) >= 4.5, (word, ground)


def test_the_curves_can_be_told_apart_on_their_cards():
    """WCAG AA for graphics: 3:1, in both themes; a shape for each colour."""
    script = (FOLDER / "curves.js").read_text()
    cards = re.findall(r"--st-card: (#\w{6});", (FOLDER / "live.css").read_text())
    shapes = re.search(r"SHAPES = \{(.*)\}", script)[1].count(":")
    for theme, card in zip(("light", "dark"), cards, strict=True):
        tones = re.findall(r"#\w{6}", re.search(rf"{theme}: \[(.*)\]", script)[1])
        assert len(set(tones)) == shapes
        assert all(contrast(tone, card) >= 3 for tone in tones), theme


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
