"""The Live tab: a scene driven by the model, its energy, and the landscape that it descended."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

import gradio as gr
import plotly

from models.config import SAMPLER_BOUNDS, SamplerConfig
from models.types import ACTION_NAMES
from studio.events import (
    CAMERA_BOUNDS,
    LIGHT_BOUNDS,
    MAX_CHAINS,
    ROBOT_BOUNDS,
    SENSOR_BOUNDS,
    CameraPerturbation,
    LightPerturbation,
    RobotStart,
    SceneSpec,
    SensorNoise,
)
from studio.perturbations import DIFFICULTIES, lights, sensors, starts
from studio.scores import SCORES
from studio.sequence import MAX_INSTRUCTION
from studio.ui.widgets import PLOTLY, Field, bridge, form, heading, listen, panel

CAMERA_LOOKS = {
    "orbit_horizontal": Field("Orbit ↔ (°)", step=1),
    "orbit_vertical": Field("Orbit ↕ (°)", step=1),
    "distance": Field("Distance (%)", step=1),
    "turn_horizontal": Field("Turn ↔ (°)", step=1),
    "turn_vertical": Field("Turn ↕ (°)", step=1),
    "fov": Field("FOV (°)", step=1),
}
LIGHT_LOOKS = {
    "intensity": Field("Intensity (%)", step=1),
    "azimuth": Field("Azimuth (°)", step=1),
    "elevation": Field("Elevation (°)", step=1),
    "hue": Field("Filter hue (°)", step=1),
    "saturation": Field("Filter (%)", step=1),
}
SENSOR_LOOKS = {"kind": Field("Noise"), "severity": Field("Severity", step=1)}
ROBOT_LOOKS = {"offset": Field("Offset (rad)", step=0.05), "direction": Field("Direction", step=1)}
LAYOUT_LABELS = {"libero": "LIBERO's places", "swap": "swapped (LIBERO-PRO)"}
SAMPLER_LOOKS = {
    "steps": Field("K_inf · MCMC steps", step=1),
    "step_size": Field("α · step size"),
    "temperature": Field("τ · temperature"),
    "init_std": Field("σ_init · start"),
    "langevin_std": Field("σ_L · Langevin"),
    "grad_clip": Field("c · clip"),
    "action_clamp": Field("a_max · clamp"),
    "chains": Field("N · chains", step=1),
    "grad_cutoff": Field("‖g‖ that ends it (0: never)", step=0.1),
}

PRESETS = {"light": lights, "sensor": sensors, "robot": starts}

Widgets = dict[str, gr.components.Component]


class StudioInfo(Protocol):
    """What the page reads of the studio."""

    suites: dict[str, list[str]]
    checkpoint: dict[str, Any]
    layouts: dict[str, list[str]]  # that a suite's scenes come in

    def views(self, suite: str, task: int) -> list[dict[str, float]]:
        """LIBERO-Plus camera views of a task: camera fields and difficulty."""


def build_live(studio: StudioInfo, owners: str) -> None:
    """Lay the tab out inside the current Blocks; `owners` as in `page.build`."""
    with gr.Row(elem_id="live-page", elem_classes="st-page"):
        with gr.Column(scale=0, min_width=320, elem_id="live-controls"):
            widgets = _scene(studio)
            widgets |= _camera()
            widgets |= _disturbances()
            widgets |= _sampler()
            _keep()
        with gr.Column(scale=1, min_width=320, elem_id="live-main"):
            widgets |= _instruction(studio)
            panel("stage")
            panel("drive", elem_classes="st-card")
            with gr.Row(elem_classes="st-aside"):
                panel("guard", elem_classes="st-card")
                panel("sequence", elem_classes="st-card")
            panel("trace", elem_classes="st-card")
            widgets |= _landscape(studio.checkpoint["horizon"])
            _descent()
    bridge({**_config(studio), "owners": owners}, widgets)


def _config(studio: StudioInfo) -> dict[str, Any]:
    forms = (CameraPerturbation(), LightPerturbation(), SensorNoise(), RobotStart())
    defaults = dict(zip(("camera", *PRESETS), map(asdict, forms), strict=True))
    camera = defaults["camera"]
    moves = [name for name in camera if name != "fov"]  # LIBERO-Plus keeps the field of view
    views = {
        suite: [
            [[view[name] for name in [*moves, "difficulty"]] for view in studio.views(suite, task)]
            for task in range(len(instructions))
        ]
        for suite, instructions in studio.suites.items()
    }
    return {
        "suites": studio.suites,
        "views": views,
        "presets": {
            group: [[*asdict(item).values(), d] for d in DIFFICULTIES for item in make(d)]
            for group, make in PRESETS.items()
        },
        "layouts": {
            suite: [[LAYOUT_LABELS[name], name] for name in names]
            for suite, names in studio.layouts.items()
        },
        "defaults": defaults | {"sampler": asdict(SamplerConfig())},
        "scores": {score.name: score.label for score in SCORES.values()},
        "plotly": f"gradio_api/file={PLOTLY.as_posix()}?{plotly.__version__}",
    }


def _scene(studio: StudioInfo) -> Widgets:
    scene = SceneSpec()
    tasks = [(f"{i} · {text}", i) for i, text in enumerate(studio.suites[scene.suite])]
    with gr.Group(elem_classes="st-card"):
        heading("<h3>Scene</h3>")
        suite = gr.Dropdown(
            list(studio.suites), value=scene.suite, label="Suite", elem_id="live-suite"
        )
        task = gr.Dropdown(tasks, value=scene.task, label="Task", elem_id="live-task")
        with gr.Row():
            init = _slider("Initial state", 0, 49, scene.init, 1, "live-init")
            seed = gr.Number(
                scene.seed, minimum=0, maximum=2**31 - 1, precision=0, label="Seed",
                elem_id="live-seed", min_width=80,
            )  # fmt: skip
        load = gr.Button("Load scene", variant="primary", elem_id="live-load")
    listen(suite.input, "(name) => window.studio.suite(name)", [suite], [task, init])
    listen(
        load.click,
        "(suite, task, init, seed) => { window.studio.load(suite, task, init, seed) }",
        [suite, task, init, seed],
    )
    return {"scene.suite": suite, "scene.task": task, "scene.init": init, "scene.seed": seed}


def _instruction(studio: StudioInfo) -> Widgets:
    with gr.Row(elem_id="live-instruction-row", elem_classes="st-card"):
        text = gr.Textbox(
            label="Instruction",
            placeholder="What should the robot do?",
            max_length=MAX_INSTRUCTION,
            lines=1,
            scale=6,
            elem_id="live-instruction",
        )
        apply = gr.Button("Apply", scale=0, min_width=84, elem_id="live-apply")
        ready = gr.Dropdown(
            studio.suites[SceneSpec().suite],
            value=None,
            label="from the suite",
            scale=3,
            min_width=180,
            elem_id="live-instructions",
        )
    say = "(text) => { window.studio.instruct(text) }"
    listen(text.submit, say, [text])
    listen(apply.click, say, [text])
    listen(text.input, "() => { window.studio.typing() }")
    listen(ready.input, "(text) => { window.studio.instruct(text); return text }", [ready], [text])
    return {"instruction.text": text, "instruction.suite": ready}


def _camera() -> Widgets:
    with gr.Group(elem_classes="st-card"):
        heading("<h3>Camera <small>agentview</small></h3>")
        panel("pose")
        with gr.Row(elem_classes="st-sliders"):
            fields = form("camera", CameraPerturbation(), CAMERA_BOUNDS, CAMERA_LOOKS)
        outputs = list(fields.values())
        heading("<h4>LIBERO-Plus view, by difficulty</h4>")
        _by_difficulty("camera", "view", outputs)
        view = gr.Dropdown([], label="A view of this task", elem_id="live-view")
    listen(view.input, "(index) => window.studio.preset(index)", [view], outputs)
    return {f"camera.{name}": widget for name, widget in fields.items()} | {"camera.view": view}


def _by_difficulty(group: str, name: str, outputs: list[gr.components.Component]) -> None:
    """Buttons that draw a perturbation of a difficulty, or of any, and that take it back."""
    with gr.Row(elem_classes="st-buttons"):
        for difficulty in DIFFICULTIES:
            button = gr.Button(str(difficulty), min_width=30, elem_id=f"live-{name}-{difficulty}")
            draw = f"() => window.studio.draw('{group}', {difficulty})"
            listen(button.click, draw, outputs=outputs)
        wide = {"min_width": 64, "elem_classes": "st-wide"}
        chance = gr.Button("random", elem_id=f"live-{name}-random", **wide)
        nominal = gr.Button("nominal", elem_id=f"live-{group}-reset", **wide)
    listen(chance.click, f"() => window.studio.draw('{group}', 0)", outputs=outputs)
    listen(nominal.click, f"() => window.studio.reset('{group}')", outputs=outputs)


def _disturbances() -> Widgets:
    widgets: Widgets = {}
    title = "Light, sensor, robot"
    with gr.Accordion(title, open=False, elem_classes="st-card", elem_id="live-disturbances"):
        for group, default, bounds, looks, about in (
            ("light", LightPerturbation(), LIGHT_BOUNDS, LIGHT_LOOKS, "the lamps, live"),
            ("sensor", SensorNoise(), SENSOR_BOUNDS, SENSOR_LOOKS, "agentview, for the policy"),
            ("robot", RobotStart(), ROBOT_BOUNDS, ROBOT_LOOKS, "its start: loads the scene anew"),
        ):
            heading(f"<h3 data-form='{group}'>{group.capitalize()} <small>{about}</small></h3>")
            with gr.Row(elem_classes="st-sliders"):
                fields = form(group, default, bounds, looks)
            _by_difficulty(group, group, list(fields.values()))
            widgets |= {f"{group}.{name}": widget for name, widget in fields.items()}
        heading("<h3>Objects <small>their places: loads the scene anew</small></h3>")
        layout = gr.Dropdown(
            [(label, name) for name, label in LAYOUT_LABELS.items()],
            value=SceneSpec().layout,
            show_label=False,
            elem_id="live-layout",
        )
    listen(layout.input, "(name) => { window.studio.layout(name) }", [layout])
    return widgets | {"scene.layout": layout}


def _sampler() -> Widgets:
    with gr.Accordion("Sampler", open=False, elem_classes="st-card", elem_id="live-sampler"):
        with gr.Row(elem_classes="st-numbers"):
            fields = form("sampler", SamplerConfig(), SAMPLER_BOUNDS, SAMPLER_LOOKS)
        reset = gr.Button("Defaults of the paper", size="sm", elem_id="live-sampler-reset")
    listen(reset.click, "() => window.studio.reset('sampler')", outputs=list(fields.values()))
    return {f"sampler.{name}": widget for name, widget in fields.items()}


def _keep() -> None:
    with gr.Group(elem_classes="st-card"):
        heading("<h3>Keep this episode</h3>")
        with gr.Row(elem_classes="st-buttons"):
            for kind, label in (("mp4", "Video (MP4)"), ("zip", "Data (ZIP)")):
                button = gr.Button(label, min_width=110, elem_id=f"live-export-{kind}")
                listen(button.click, f"() => {{ window.studio.download('{kind}') }}")
        panel("record", "recordings")


def _landscape(horizon: int) -> Widgets:
    choices = [(name, index) for index, name in enumerate(ACTION_NAMES)]
    with gr.Group(elem_classes="st-card", elem_id="live-landscape-card"):
        heading("<h3>Landscape <small>E around the selected plan</small></h3>")
        with gr.Row(elem_classes="st-split"):
            with gr.Column(scale=0, min_width=220, elem_classes="st-side"):
                timestep = _slider("Action of the chunk", 1, horizon, 1, 1, "live-slice-timestep")
                a = gr.Dropdown(choices, value=0, label="Across", elem_id="live-slice-a")
                b = gr.Dropdown(choices, value=1, label="Up", elem_id="live-slice-b")
                span = _slider("Range ±", 0.1, 10, 1.5, 0.1, "live-slice-span")
                grid = _slider("Grid", 10, 100, 50, 5, "live-slice-grid")
                mode = gr.Radio(
                    [("Map", "contour"), ("3D", "surface")],
                    value="contour",
                    label="View",
                    elem_id="live-slice-mode",
                )
                follow = gr.Checkbox(False, label="Follow the newest plan", elem_id="live-follow")
            with gr.Column(scale=1, min_width=260):
                panel("landscape")
    inputs = [timestep, a, b, span, grid, mode]
    ask = (
        "(t, a, b, span, grid, mode) => "
        "{ window.studio.query({timestep: t - 1, dims: [a, b], span, grid, mode}) }"
    )
    for widget in inputs:
        listen(widget.input, ask, inputs)
    listen(follow.input, "(on) => { window.studio.follow(on) }", [follow])
    return {"slice.timestep": timestep}


def _descent() -> None:
    with gr.Group(elem_classes="st-card", elem_id="live-descent-card"):
        heading("<h3>Descent <small>from a⁽⁰⁾ to a⁽ᴷ⁾, over the same slice</small></h3>")
        with gr.Row(elem_classes="st-toolbar"):
            chains = _slider(
                "Chains · 1: the one recorded, more: planned again from N starts",
                1,
                MAX_CHAINS,
                1,
                1,
                "live-descent-chains",
            )
        panel("descent")
    listen(chains.input, "(n) => { window.studio.chains(n) }", [chains])


def _slider(
    label: str, low: float, high: float, value: float, step: float, elem_id: str
) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, buttons=[], elem_id=elem_id)
