"""The OOD lab tab: evaluation runs, what their energies tell, and sweeps of one state."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gradio as gr

from studio.evaluating import EvaluateForm
from studio.events import CAMERA_BOUNDS
from studio.sim import catalog
from studio.sweeping import MOVES, SweepForm
from studio.trial import NOMINAL
from studio.ui.widgets import bridge, call, defaults_button, entry, heading, listen, number, panel

Widgets = dict[str, gr.components.Component]
LABELS = {
    "checkpoint": "Checkpoint",
    "suite": "Suites",
    "perturb": "Perturbation",
    "episodes": "Episodes",
    "views": "Perturbations",
    "difficulty": "Difficulty",
    "inits": "Initial states",
    "tasks": "Tasks",
    "chains": "Chains",
    "workers": "Workers",
    "seed": "Seed",
    "name": "Name",
    "over": "What changes",
    "task": "Task",
    "init": "Initial state",
    "orbit_from": "Orbit from (°)",
    "orbit_to": "Orbit to (°)",
    "distance_from": "Distance from (%)",
    "distance_to": "Distance to (%)",
    "size": "Points per axis",
    "plans": "Plans per point",
}
PLACEHOLDERS = {
    "name": "chosen by itself",
    "tasks": "all, or 0-3,7",
    "workers": "all cores",
    "episodes": "all",
    "views": "all",
}
PERTURBATIONS = {
    NOMINAL: "none: nominal episodes",
    "camera": "camera: LIBERO-Plus views",
    "light": "light: brightness, direction, colour",
    "sensor": "sensor: blur and fog",
    "robot": "robot: another start of the arm",
    "swap": "swap: LIBERO-PRO's layout",
    "language": "language: LIBERO-PRO's paraphrases",
    "goal": "goal: another task of the scene",
}
OVER = {"camera": "the camera: orbit × distance", "words": "the words: paraphrases, other tasks"}
BOUNDS = {
    "task": (0, 89),
    "init": (0, 49),
    "size": (2, 41),
    "plans": (1, 64),
    "seed": (0, None),
    **{f"{move}_{end}": CAMERA_BOUNDS[field] for move, field in MOVES.items()
       for end in ("from", "to")},
}  # fmt: skip

STEPS = {f"{move}_{end}": 5 for move in MOVES for end in ("from", "to")}  # the others 1


def build_lab() -> None:
    """Lay the tab out inside the current Blocks."""
    with gr.Row(elem_id="lab-page", elem_classes="st-page"):
        with gr.Column(scale=0, min_width=320, elem_classes="st-controls"):
            evaluation = _evaluation()
            sweep = _sweep()
        with gr.Column(scale=1, min_width=320, elem_classes="st-main"):
            panel("runs", "lab", elem_classes="st-card")
            panel("study", "lab")
            panel("tables", "lab", elem_classes="st-card")
            panel("map", "sweep", elem_classes="st-card")
    for tab, form, widgets in (("lab", EvaluateForm, evaluation), ("sweep", SweepForm, sweep)):
        named = {f"{tab}.{name}": widget for name, widget in widgets.items()}
        bridge({"defaults": _defaults(form)}, named, tab, f"{tab}.widgets()")


def _defaults(form: type) -> dict[str, Any]:
    return {f.name: f.default for f in fields(form)}


def _evaluation() -> Widgets:
    with gr.Group(elem_classes="st-card"):
        heading("<h3>New evaluation</h3>")
        shown = _defaults(EvaluateForm)
        widgets: Widgets = {
            "checkpoint": _checkpoints("lab"),
            "perturb": gr.Dropdown(
                [(text, kind) for kind, text in PERTURBATIONS.items()],
                value=shown["perturb"], label=LABELS["perturb"], elem_id="lab-perturb",
            ),
            "suite": gr.Dropdown(
                list(catalog.SUITES), value=[shown["suite"]], multiselect=True,
                label=LABELS["suite"], elem_id="lab-suite",
            ),
        }  # fmt: skip
        widgets |= _numbers("lab", shown, ("inits", "tasks"), ("episodes", "views"))
        widgets |= _numbers("lab", shown, ("difficulty", "chains"), ("workers", "seed"))
        widgets["name"] = _widget("lab", "name", shown["name"])
        _launch("lab", "evaluate", "Evaluate")
    return _entries("lab", widgets)


def _sweep() -> Widgets:
    shown = _defaults(SweepForm)
    with gr.Accordion("New sweep", open=False, elem_classes="st-card", elem_id="sweep-form"):
        widgets: Widgets = {
            "checkpoint": _checkpoints("sweep"),
            "over": gr.Dropdown(
                [(text, kind) for kind, text in OVER.items()],
                value=shown["over"], label=LABELS["over"], elem_id="sweep-over",
            ),
            "suite": gr.Dropdown(
                list(catalog.SUITES), value=shown["suite"], label="Suite", elem_id="sweep-suite"
            ),
        }  # fmt: skip
        widgets |= _numbers("sweep", shown, ("task", "init"), ("orbit_from", "orbit_to"))
        widgets |= _numbers("sweep", shown, ("distance_from", "distance_to"), ("size", "plans"))
        widgets |= _numbers("sweep", shown, ("name", "seed"))
        _launch("sweep", "sweep", "Sweep")
    return _entries("sweep", widgets)


def _launch(tab: str, kind: str, text: str) -> None:
    panel("command", tab)
    button = gr.Button(text, variant="primary", elem_id=f"{kind}-launch")
    listen(button.click, f"() => {call(tab, 'launch()')}")
    defaults_button(tab)


def _entries(tab: str, widgets: Widgets) -> Widgets:
    for name, widget in widgets.items():
        entry(tab, name, widget)
    return widgets


def _checkpoints(tab: str) -> gr.Dropdown:
    return gr.Dropdown(
        [], value=None, label=LABELS["checkpoint"], elem_id=f"{tab}-checkpoint",
        allow_custom_value=True,
    )  # fmt: skip


def _numbers(tab: str, shown: dict[str, Any], *rows: tuple[str, ...]) -> Widgets:
    made: Widgets = {}
    for row in rows:
        with gr.Row(elem_classes="st-numbers"):
            made |= {name: _widget(tab, name, shown[name]) for name in row}
    return made


def _widget(tab: str, name: str, value: Any) -> gr.components.Component:
    common = {"label": LABELS[name], "elem_id": f"{tab}-{name}", "min_width": 110}
    hint = PLACEHOLDERS.get(name, f"{value}".removesuffix(".0"))  # what an empty box means
    if isinstance(value, str):
        return gr.Textbox(value, max_length=64, placeholder=hint, **common)
    bounds, step = BOUNDS.get(name, (1, None)), STEPS.get(name, 1)
    return number(value, bounds, step, placeholder=hint, **common)
