"""The Collect tab: scripted demonstrations of a suite, and a look at what folders hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import gradio as gr

from studio.collecting import CollectForm
from studio.ui.widgets import bridge, entry, heading, listen, panel

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
    "beta": "Expert's share before",
    "other_scenes": "Other scenes",
    "misses": "Missed grasps",
    "regrasps": "Second grasps",
}
FLAGS = ("other_scenes", "misses", "regrasps")
PLACEHOLDERS = {"tasks": "all, or 0-3,7", "name": "chosen by itself", "workers": "all cores"}
BOUNDS = {
    "per_task": (1, 1000),
    "noise": (0, 1),
    "noise_fraction": (0, 1),
    "workers": (1, 256),
    "beta": (0, 0.99),
}


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
            suites, value=shown["suite"], label=LABELS["suite"], elem_id="collect-suite"
        )
        for row in (("tasks", "inits"), ("per_task", "workers"), ("noise", "noise_fraction")):
            with gr.Row(elem_classes="st-numbers"):
                widgets |= {name: _widget(name, shown[name]) for name in row}
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in ("name", "seed")}
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in FLAGS}
        widgets["dagger"] = gr.Dropdown(
            [], label=LABELS["dagger"], elem_id="collect-dagger", allow_custom_value=True
        )
        widgets["beta"] = _widget("beta", shown["beta"])
        panel("command", "collect")
        launch = gr.Button("Collect", variant="primary", elem_id="collect-launch")
    listen(launch.click, "() => { collect.launch() }")
    for name, widget in widgets.items():
        entry("collect", name, widget)
    return widgets


def _widget(name: str, value: Any) -> gr.components.Component:
    common = {"label": LABELS[name], "elem_id": f"collect-{name}", "min_width": 110}
    hint = PLACEHOLDERS.get(name)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, str):
        return gr.Textbox(value, max_length=64, placeholder=hint, **common)
    low, high = BOUNDS.get(name, (0, None))
    return gr.Number(value, minimum=low, maximum=high, placeholder=hint, precision=None, **common)
