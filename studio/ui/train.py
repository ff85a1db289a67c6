"""The Train tab: launch a training, follow it, compare runs, use a checkpoint in Live."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gradio as gr

from models.config import HEADS, PRESETS
from models.schedule import AUTO_PRECISIONS, BOUNDS, TrainConfig
from models.train import OPTIONS
from studio.sim import catalog
from studio.training import TUNED, TrainForm
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
    "data": "Demonstrations",
    "preset": "Preset",
    "head": "Action head",
    "name": "Name of the run",
    "minutes": "Minutes",
    "steps": "Steps",
    "batch_size": "Batch size",
    "lr": "Peak learning rate",
    "weight_decay": "Weight decay",
    "warmup_steps": "Warm-up steps",
    "ema": "EMA decay",
    "seed": "Seed",
    "k_min": "K_min",
    "k_max": "K_max",
    "alpha_min": "α_min",
    "alpha_max": "α_max",
    "warm_fraction": "Warm fraction",
    "chains_per_sample": "Chains per sample",
    "warm_k_min": "Warm K_min",
    "warm_k_max": "Warm K_max",
    "contrast": "Contrastive term",
    "wordings": "Wordings per instruction",
    "balance": "Balance of the tasks",
    "opening_weight": "Weight of a first chunk",
    "human_weight": "Weight of a person's chunks",
    "policy_weight": "Weight of the policy's own",
    "gradient_checkpointing": "Gradient checkpointing",
    "compile": "Compile the encoder",
    "cache_features": "Cached feature copies",
    "log_every": "Log every n steps",
    "eval_every": "Every n steps (0: never)",
    "eval_suite": "Suite",
    "eval_tasks": "Tasks",
    "eval_inits": "Initial states",
    "init": "Start from a checkpoint",
    "pretrained": "Pretrained parts (eb-vla-0.5b)",
    "stride": "Sample every n-th step",
    "val_fraction": "Share held out",
    "val_every": "Validate every n steps",
    "precision": "Precision",
    "device": "Device",
    "threads": "CPU threads",
}
GROUPS = {
    "Optimiser": ("batch_size", "lr", "weight_decay", "warmup_steps", "ema", "seed"),
    "MCMC in training": (
        "k_min",
        "k_max",
        "alpha_min",
        "alpha_max",
        "chains_per_sample",
        "warm_fraction",
        "warm_k_min",
        "warm_k_max",
        "contrast",
    ),
    "Recordings": ("human_weight", "policy_weight"),
    "Success in the simulator": ("eval_every", "eval_suite", "eval_tasks", "eval_inits"),
    "Data and machine": (
        "stride",
        "val_fraction",
        "val_every",
        "log_every",
        "wordings",
        "balance",
        "opening_weight",
        "cache_features",
        "threads",
        "device",
        "precision",
        "init",
        "pretrained",
        "gradient_checkpointing",
        "compile",
    ),
}
CHOICES = {
    "preset": list(PRESETS),
    "head": list(HEADS),
    "precision": list(AUTO_PRECISIONS),
    "device": ["auto", "cpu", "cuda"],
    "eval_suite": list(catalog.SUITES),
}
PLACEHOLDERS = {
    "name": "chosen by itself",
    "threads": "all",
    "steps": "no limit",
    "pretrained": "hub, or a folder",
}
HINTS = OPTIONS | {
    "data": "folder of demonstrations: LIBERO's HDF5 or LeRobot v3; a parent folder joins several",
    "preset": "architecture: eb-vla-0.5b is the paper's, debug is done in seconds",
    "head": "energy is the paper's; the others are there to compare with",
    "name": "of the run's folder",
    "minutes": "training time; what comes first of this and the steps ends the run",
    "steps": "optimiser steps; what comes first of these and the minutes ends the run",
    "init": "checkpoint to start from, in its scales (fine-tuning)",
    "pretrained": "Qwen2.5, DINOv2 and SigLIP, of the hub or of a folder with one folder for each",
    "stride": "a sample every n-th step of a demonstration",
    "device": "auto takes a GPU where there is one",
    "threads": "of this machine's processor",
}
STEPS = {
    "minutes": 5,
    "lr": 5e-5,
    "weight_decay": 0.01,
    "ema": 0.001,
    "alpha_min": 0.01,
    "alpha_max": 0.01,
    "warm_fraction": 0.05,
    "contrast": 0.01,
    "human_weight": 0.5,
    "policy_weight": 0.1,
    "balance": 0.1,
    "opening_weight": 0.5,
    "val_fraction": 0.01,
}  # of an arrow key; 1 where nothing is said
PROPOSED = {"minutes": 60.0}  # a run needs an end; the trainer has no default

Widgets = dict[str, gr.components.Component]


def build_train() -> None:
    """Lay the tab out inside the current Blocks."""
    with gr.Row(elem_id="train-page", elem_classes="st-page"):
        with gr.Column(scale=0, min_width=320, elem_classes="st-controls"):
            widgets = _form()
        with gr.Column(scale=1, min_width=320, elem_classes="st-main"):
            panel("run", "train", elem_classes="st-card")
            panel("curves", "train")
            panel("runs", "train", elem_classes="st-card")
    config = {"defaults": defaults()}
    bridge(config, {f"train.{name}": w for name, w in widgets.items()}, "train", "train.widgets()")


def defaults() -> dict[str, Any]:
    """What the form shows first: every field by name, the paper's values where it has them."""
    own = {f.name: f.default for f in fields(TrainForm)}
    config = {f.name: f.default for f in fields(TrainConfig) if f.name in TUNED}
    return own | config | PROPOSED


def _form() -> Widgets:
    shown = defaults()
    with gr.Group(elem_classes="st-card"):
        heading("<h3>New run</h3>")
        names = ("data", "preset", "head", "name")
        widgets = {name: _widget(name, shown[name]) for name in names}
        with gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in ("minutes", "steps")}
        panel("command", "train")
        launch = gr.Button("Launch", variant="primary", elem_id="train-launch")
    for title, names in GROUPS.items():
        card = gr.Accordion(title, open=False, elem_classes="st-card")
        with card, gr.Row(elem_classes="st-numbers"):
            widgets |= {name: _widget(name, shown[name]) for name in names}
    defaults_button("train")
    listen(launch.click, f"() => {call('train', 'launch()')}")
    listen(widgets["data"].focus, f"() => {call('train', 'choices()')}")
    for name, widget in widgets.items():
        entry("train", name, widget)
    return widgets


def _widget(name: str, value: Any) -> gr.components.Component:
    common = {"label": LABELS[name], "elem_id": f"train-{name}", "info": sentence(HINTS[name])}
    if name in CHOICES:
        return gr.Dropdown(CHOICES[name], value=value, **common)
    if name in ("data", "init"):
        return gr.Dropdown([], value=None, allow_custom_value=True, **common)
    hint = PLACEHOLDERS.get(name)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, str):
        return gr.Textbox(value, max_length=200, placeholder=hint, **common)
    bounds, step = BOUNDS.get(name, (None, None)), STEPS.get(name, 1)
    return number(value, bounds, step, placeholder=hint, **common)
