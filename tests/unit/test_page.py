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
def page() -> gr.Blocks:
    view = {f.name: f.default for f in fields(CameraPerturbation)} | {"difficulty": 3}
    suites = {"libero_object": ["pick up the soup", "pick up the milk"], "libero_90": ["open it"]}
    studio = SimpleNamespace(
        suites=suites,
        checkpoint={"horizon": 6},
        layouts={"libero_object": ["libero", "swap"], "libero_90": ["libero"]},
        views=lambda suite, task: [view] * (task + 1),
    )
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


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
