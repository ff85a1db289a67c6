"""The page: header, tabs, theme, and the static files that they need."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.static import address
from studio.ui.collect import build_collect
from studio.ui.lab import build_lab
from studio.ui.live import StudioInfo, build_live
from studio.ui.recordings import build_recordings
from studio.ui.train import build_train
from studio.ui.widgets import PLOTLY, notice, panel

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "sans-serif"]
TEAL = gr.themes.Color(
    name="teal-deep",
    c50="#e9f8f6",
    c100="#cdeeea",
    c200="#9fdcd6",
    c300="#66c4bd",
    c400="#31a9a2",
    c500="#0f9d94",
    c600="#0a756e",
    c700="#0b6661",
    c800="#0c524f",
    c900="#0c4442",
    c950="#042928",
)
THEME = gr.themes.Base(
    primary_hue=TEAL,
    secondary_hue=TEAL,
    neutral_hue=gr.themes.colors.slate,
    font=SYSTEM_FONTS,
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    radius_size=gr.themes.sizes.radius_md,
)
LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "head": f'<link rel="icon" href="{address("icon.svg")}">'
    + "".join(
        f'<link rel="stylesheet" href="{address(name)}">'
        for name in ("live.css", "drive.css", "jobs.css", "lab.css", "recordings.css")
    ),
    "footer_links": [],
    "run_history": False,
    "max_file_size": 1,  # nothing on this page uploads
    "ssr_mode": False,
    "show_error": False,
}


def build(studio: StudioInfo, owners: str = "") -> gr.Blocks:
    """The whole page, ready for `gr.mount_gradio_app(app, page, path="/", **LAUNCH)`.

    `owners`: why what is the owner's can't be done here, in a studio that is open to everyone.
    """
    gr.set_static_paths([PLOTLY])
    with gr.Blocks(title="EB-VLA Studio", analytics_enabled=False, fill_width=True) as page:
        panel("header")
        with gr.Tabs(elem_id="studio-tabs"):
            with gr.Tab("Live", id="live"):
                build_live(studio, owners)
            with gr.Tab("Recordings", id="recordings"):
                build_recordings()
            with gr.Tab("OOD lab", id="lab"):
                notice(owners)
                build_lab()
            with gr.Tab("Collect", id="collect"):
                notice(owners)
                build_collect(studio.suites)
            with gr.Tab("Train", id="train"):
                notice(owners)
                build_train()
    return page
