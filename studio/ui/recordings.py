"""The Recordings tab: what people recorded, looked through, trimmed, replayed and trained on."""

from __future__ import annotations

import gradio as gr

from studio.ui.widgets import panel


def build_recordings() -> None:
    """Lay the tab out inside the current Blocks."""
    with gr.Row(elem_id="recordings-page", elem_classes="st-page"):
        with gr.Column(scale=5, min_width=320, elem_classes="st-main"):
            panel("library", "recordings", elem_classes="st-card")
        with gr.Column(scale=6, min_width=320, elem_classes="st-main"):
            panel("viewer", "recordings", elem_classes="st-card")
