"""The Collect tab: scripted demonstrations of a suite, and a look at what folders hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import gradio as gr

from studio.collect import HELD_OUT
from studio.collecting import CollectForm
from studio.ui.widgets import (
    bridge,
    call,
    defaults_button,
    entry,
    heading,
    listen,
    number,
    panel,
    sentence,
)

LABELS = {
    "suite": "Suite",
    "tasks": "Tasks",
    "per_task": "Per task",
    "inits": "Initial states",
    "name": "Name",
    "noise": "Action noise (σ)",
    "noise_fraction": "Share with noise",
    "workers": "Workers",
    "seed": "Seed",
    "dagger": "A policy drives first (DAgger)",
    "relabel": "Relabel its steps",
    "beta": "Expert's share before",
    "other_scenes": "Other scenes",
    "misses": "Missed grasps",
    "regrasps": "Second grasps",
}
HINTS = {
    "suite": "of LIBERO; its tasks are listed in Live",
    "tasks": "by number, such as 0-3,7",
    "per_task": "demonstrations of each task",
    "inits": f"by number; {HELD_OUT.start}-{HELD_OUT.stop - 1} are held out for evaluation",
    "name": "of the collection's folder",
    "noise": "standard deviation on the executed actions; the labels stay clean (DART)",
    "noise_fraction": "share of the episodes with that noise",
    "workers": "processes, each with a simulator",
    "seed": "of the noise",
    "dagger": "its policy drives first, the expert shows the way out of where that led",
    "relabel": "it drives to the end, its steps get the expert's actions",
    "beta": "the expert's share of the plans before it takes over",
    "other_scenes": "each task in the scenes of other tasks that hold its objects, so that the "
    "instruction decides and not the scene",
    "misses": "each begins with a grasp that failed, which is not in it",
    "regrasps": "keep those with a second grasp, too",
}  # as the command's own help says it
FLAGS = ("other_scenes", "misses", "regrasps")
PLACEHOLDERS = {"tasks": "all, or 0-3,7", "name": "chosen by itself", "workers": "all cores"}
BOUNDS = {
    "per_task": (1, 1000),
    "noise": (0, 1),
    "noise_fraction": (0, 1),
    "workers": (1, 256),
    "beta": (0, 0.99),
}
STEPS = {"noise": 0.01, "noise_fraction": 0.01, "beta": 0.05}  # of an arrow key


def build_collect(suites: Mapping[str, Sequence[str]]) -> None:
    """Lay the tab out inside the current Blocks; `suites`: instructions by suite."""
    with gr.Row(elem_id="collect-page", elem_classes="st-page"):
        with gr.Column(scale=0, min_width=320, elem_classes="st-controls"):
            widgets = _form(list(suites))
        with gr.Column(scale=1, min_width=320, elem_classes="st-main"):
            panel("run", "collect", elem_classes="st-card")
            panel("contents", "collect", elem_classes="st-card")
    config = {"defaults": _defaults(), "suites": suites}
    named = {f"collect.{name}": widget for name, widget in widgets.items()}
    bridge(config, named, "collect", "collect.widgets()")


def _defaults() -> dict[str, Any]:
    return {f.name: f.default for f in fields(CollectForm)}


def _form(suites: list[str]) -> dict[str, gr.components.Component]:
    shown, widgets = _defaults(), {}
    with gr.Group(elem_classes="st-card"):
        heading("<h3>New demonstrations</h3>")
        widgets["suite"] = gr.Dropdown(
            suites, value=shown["suite"], label=LABELS["suite"], elem_id="collect-suite",
            info=sentence(HINTS["suite"]),
        )  # fmt: skip
        for row in (("tasks", "inits"), ("per_task", "workers"), ("noise", "noise_fraction")):
            with gr.Row(elem_classes="st-numbers"):
                widgets |= {name: _widget(name, shown[name]) for name in row}
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in ("name", "seed")}
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in FLAGS}
        widgets["dagger"] = gr.Dropdown(
            [], label=LABELS["dagger"], elem_id="collect-dagger", allow_custom_value=True,
            info=sentence(HINTS["dagger"]),
        )  # fmt: skip
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in ("relabel", "beta")}
        panel("command", "collect")
        launch = gr.Button("Collect", variant="primary", elem_id="collect-launch")
        defaults_button("collect")
    listen(launch.click, f"() => {call('collect', 'launch()')}")
    for name, widget in widgets.items():
        entry("collect", name, widget)
    return widgets


def _widget(name: str, value: Any) -> gr.components.Component:
    common = {"label": LABELS[name], "elem_id": f"collect-{name}", "min_width": 110}
    common["info"] = sentence(HINTS[name])
    hint = PLACEHOLDERS.get(name)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, str):
        return gr.Textbox(value, max_length=64, placeholder=hint, **common)
    bounds, step = BOUNDS.get(name, (0, None)), STEPS.get(name, 1)
    return number(value, bounds, step, placeholder=hint, **common)
