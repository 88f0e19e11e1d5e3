"""The components of the Arena tab by name; layout makes them, handlers fill them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr


@dataclass(frozen=True, slots=True)
class Parts:
    """One field per component. Handlers answer `{component: value}`, never a positional list."""

    session: gr.BrowserState
    badge: gr.HTML
    consent: gr.Column
    agree: gr.Button
    refuse: gr.Button
    notices: gr.HTML
    thread: gr.HTML
    message: gr.HTML
    pair: gr.Column
    pane_a: gr.HTML
    pane_b: gr.HTML
    votes: gr.Row
    vote: tuple[gr.Button, ...]
    reveal: gr.HTML
    rate: gr.Accordion
    ratings: tuple[gr.Slider, ...]
    comment: gr.Textbox
    rate_save: gr.Button
    examples: gr.Column
    box: gr.Textbox
    send: gr.Button
    pick: gr.Dropdown
    stop: gr.Button
    retry: gr.Button
    new: gr.Button
    heard: gr.HTML
    plots: gr.HTML
    plot: gr.Plot

    def all(self) -> list[Any]:
        """Every component, as `outputs` of a handler that may change any of them."""
        flat: list[Any] = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            flat += value if isinstance(value, tuple) else [value]
        return flat
