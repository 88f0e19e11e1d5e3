"""The components of the Arena tab by name, with labels. Layout makes them, handlers fill them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import gradio as gr

from empo_demo.ui.texts import Texts


@dataclass(frozen=True, slots=True)
class Parts:
    """One field per component. Handlers answer `{component: value}`, never a positional list."""

    session: gr.BrowserState
    badge: gr.HTML
    pair_note: gr.HTML
    examples: gr.HTML
    steps: gr.HTML
    consent: gr.Column
    agree: gr.Button
    refuse: gr.Button
    notices: gr.HTML
    warning: gr.HTML
    thread: gr.HTML
    message: gr.HTML
    pair: gr.Column
    pane_a: gr.HTML
    pane_b: gr.HTML
    votes: gr.Row
    vote: tuple[gr.Button, ...]
    reveal: gr.HTML
    go_on: gr.HTML
    next: gr.Button
    keep: gr.Button
    ten: gr.Button
    results: gr.HTML
    share: gr.Button
    card: gr.HTML
    rate: gr.Accordion
    ratings: tuple[gr.Radio, ...]
    comment: gr.Textbox
    rate_save: gr.Button
    box: gr.Textbox
    send: gr.Button
    pick: gr.Dropdown
    stop: gr.Button
    retry: gr.Button
    new: gr.Button
    heard: gr.HTML
    plots: gr.HTML

    def all(self) -> list[Any]:
        """Every component, as `outputs` of a handler that may change any of them."""
        flat: list[Any] = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            flat += value if isinstance(value, tuple) else [value]
        return flat


def writing_box(say: Texts, elem_id: str, *, max_lines: int, **given: Any) -> gr.Textbox:
    """The box that a person writes into: one line that grows, its label for screen readers only."""
    return gr.Textbox(
        placeholder=say("box"),
        label=say("box"),
        show_label=False,
        container=False,
        lines=1,
        max_lines=max_lines,
        scale=8,
        elem_id=elem_id,
        interactive=True,
        **given,
    )


@dataclass(frozen=True, slots=True)
class Labels:
    """What is written on components that no round changes, for a change of language."""

    _entries: list[tuple[Any, str, Callable[[Texts], Any]]] = field(default_factory=list)

    def add(self, component: Any, words: str | Callable[[Texts], Any], on: str = "value") -> Any:
        """Remember that the property `on` of `component` says `words`, a key or a function."""
        read = words if callable(words) else (lambda say: say(words))
        self._entries.append((component, on, read))
        return component

    def components(self) -> list[Any]:
        return list(dict.fromkeys(component for component, _, _ in self._entries))

    def changes(self, say: Texts) -> dict[Any, Any]:
        changes: dict[Any, dict[str, Any]] = {}
        for component, on, read in self._entries:
            changes.setdefault(component, {})[on] = read(say)
        return {component: gr.update(**values) for component, values in changes.items()}
