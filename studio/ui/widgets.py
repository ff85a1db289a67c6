"""Building blocks of the tabs: forms mapped from dataclasses, panels drawn in the browser.

All listeners run in the browser (`fn=None`): a control's value goes out over the page's WebSocket,
and the server's state comes back into the controls through one hidden component (`bridge`).
Nothing here passes through Gradio's queue.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from studio.places import plotly_script
from studio.static import address

SCRIPTS = {
    "live": "main.js",
    "train": "train.js",
    "collect": "collect.js",
    "lab": "lab.js",
    "sweep": "sweep.js",
    "recordings": "recordings.js",
}  # entry of each tab
PLOTLY = plotly_script()


@dataclass(frozen=True, slots=True)
class Field:
    """How one field of a dataclass looks in a form; `step` None means a number box."""

    label: str
    step: float | None = None


def listen(event: Callable[..., Any], js: str, inputs: Any = None, outputs: Any = None) -> None:
    """Attach a listener that runs in the browser alone."""
    event(
        fn=None,
        js=js,
        inputs=inputs,
        outputs=outputs,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def module(tab: str) -> str:
    """A JavaScript expression: a promise of the tab's entry module."""
    return f"import(new URL('{address(SCRIPTS[tab])}', document.baseURI))"


def call(tab: str, method: str) -> str:
    """JavaScript that calls a method of `window.<tab>`, once the tab's scripts are there.

    A tab can be typed into before a slow line has brought them.
    """
    return f"{{ {module(tab)}.then(() => {{ window.{tab}.{method} }}) }}"


def panel(name: str, tab: str = "live", **options: Any) -> gr.HTML:
    """A region that the tab's scripts draw and keep alive; its id is `<tab>-<name>`."""
    return gr.HTML(
        html_template='<div class="st-root"></div>',
        js_on_load=f"{module(tab)}.then(m => m.mount('{name}', element))",
        elem_id=f"{tab}-{name}",
        apply_default_css=False,
        **options,
    )


def entry(tab: str, name: str, widget: gr.components.Component) -> None:
    """Hand what is typed into `widget` to the tab's scripts as the field `name` of its form.

    `window.typed` has it at once, for a form that is about to fill its widgets.
    """
    # a text box does not count pasting as input
    event = widget.change if isinstance(widget, gr.Textbox) else widget.input
    typed = f"(window.typed ??= {{}})['{tab}.{name}'] = v"
    later = call(tab, f"set('{name}', v)")
    listen(event, f"(v) => {{ {typed}; {later} }}", [widget])


def sentence(text: str) -> str:
    """An option's help as a field's `info`, which the page shows to who is at the field."""
    return f"{text[0].upper()}{text[1:]}."


def number(
    value: float | None,
    bounds: tuple[float | None, float | None],
    step: float = 1,
    **options: Any,
) -> gr.Number:
    """A number box whose arrow keys change it by `step`.

    Browsers count steps from the lowest number: one that lies between two of them is rounded down,
    or they would lead to odd ones.
    """
    low, high = bounds
    if low is not None and low % step:
        low = step * math.floor(low / step)
    options = {"min_width": 110, "precision": None} | options
    return gr.Number(value, minimum=low, maximum=high, step=step, **options)


def defaults_button(tab: str) -> None:
    """Fills the tab's form anew."""
    reset = gr.Button("Defaults", size="sm", elem_id=f"{tab}-reset", elem_classes="st-reset")
    listen(reset.click, f"() => {call(tab, 'reset()')}")


def heading(text: str) -> gr.HTML:
    """A card's title as HTML, styled by assets/live/live.css."""
    return gr.HTML(text, apply_default_css=False, js_on_load=None)


def notice(text: str) -> None:
    """What holds of the whole tab, if anything does."""
    if text:
        heading(f'<p class="st-notice" role="note">{html.escape(text)}</p>')


def bridge(
    config: Mapping[str, Any],
    widgets: Mapping[str, gr.components.Component],
    tab: str = "live",
    values: str = "window.studio.widgets()",
) -> None:
    """Hand `config` to the tab's scripts and let them fill `widgets` (keyed "group.field").

    values: the JavaScript that gives a value, or nothing to change, for each of the widgets.
    """
    hidden = gr.HTML(
        html_template="<span></span>",
        js_on_load=f"{module(tab)}.then(m => m.configure(props.config, () => trigger('submit')))",
        elem_id=f"{tab}-bridge",
        visible="hidden",
        config={**config, "widgets": list(widgets)},
    )
    listen(hidden.submit, f"() => {values}", outputs=list(widgets.values()))


def form(
    group: str,
    default: Any,
    bounds: Mapping[str, tuple],
    looks: Mapping[str, Field],
) -> dict[str, gr.components.Component]:
    """A widget per field of the dataclass instance `default`, by name; edits go out at once.

    `bounds`: the lowest and the highest number, or all the words that a field may hold.
    Raises KeyError when `bounds` or `looks` leave a field out.
    """
    made = {}
    for field in fields(default):
        widget = _widget(looks[field.name], getattr(default, field.name), bounds[field.name])
        widget.elem_id = f"live-{group}-{field.name}"
        listen(
            widget.input, f"(v) => {{ window.studio.set('{group}', '{field.name}', v) }}", [widget]
        )
        made[field.name] = widget
    return made


def _widget(look: Field, value: float | str, bounds: tuple) -> gr.components.Component:
    if isinstance(value, str):
        words = [(word.replace("_", " "), word) for word in bounds]
        return gr.Dropdown(words, value=value, label=look.label, min_width=130)
    low, high = bounds
    common = {"value": value, "minimum": low, "maximum": high, "label": look.label}
    if look.step is None:
        return gr.Number(**common, min_width=110, precision=None)
    return gr.Slider(**common, step=look.step, min_width=130, buttons=[])
