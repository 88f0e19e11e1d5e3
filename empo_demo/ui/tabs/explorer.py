"""The handlers of the Explore tab. They return what changes on the page.

Two chosen contenders answer one dialogue: not blind, not stored, no vote. Every comparison counts
against the limit of the visitor's address, whether a click or a link asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from html import escape
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison, Shown
from empo_demo.arena.frames import Frame
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Failed
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.ui import shared_link
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.panes import Told, is_long, pane
from empo_demo.ui.shared_link import Linked
from empo_demo.ui.texts import Texts
from empo_demo.votes.models import SIDES, Side

STRENGTHS = (0.0, 0.5, 1.0, 1.5)
FRACTIONS = {0.0: "0", 0.5: "½", 1.0: "1", 1.5: "1½"}
Changes = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """The components of the form, in the order in which handlers get their values."""

    before: gr.State
    text: gr.Textbox
    left: gr.Dropdown
    right: gr.Dropdown
    dial_left: gr.Slider
    dial_right: gr.Slider
    seed: gr.Number
    seed_right: gr.Number
    temperature: gr.Slider
    top_p: gr.Slider
    penalty: gr.Slider
    tokens: gr.Slider

    def all(self) -> list[Any]:
        return [getattr(self, entry.name) for entry in fields(self)]

    def filled(self, comparison: Comparison) -> Changes:
        """The form as `comparison` fills it."""
        turns, decoding = comparison.dialogue.turns, comparison.decoding
        return {
            self.before: comparison.dialogue.messages()[:-1],
            self.text: turns[-1].content,
            self.left: comparison.left,
            self.right: comparison.right,
            self.dial_left: comparison.dial_left,
            self.dial_right: comparison.dial_right,
            self.seed: comparison.seed,
            self.seed_right: comparison.seed_right,
            self.temperature: decoding.temperature,
            self.top_p: decoding.top_p,
            self.penalty: decoding.repetition_penalty,
            self.tokens: decoding.max_new_tokens,
        }


@dataclass(frozen=True, slots=True)
class Explorer:
    """Bound to one arena, the form, and the components that show what was said."""

    arena: Arena
    form: Form
    panes: tuple[gr.HTML, gr.HTML]
    said: gr.HTML
    strip: gr.HTML
    link: gr.HTML

    def outputs(self) -> list[Any]:
        return [*self.panes, self.strip, self.said, self.link]

    def play(
        self, values: Any, say: Texts, address: str | None, linked: Linked | None = None
    ) -> Iterator[Changes]:
        """Both contenders of the form answer; `linked` is the link that asked for it, if one did.

        `values` are what the form's components sent.
        """
        above = ""
        try:
            comparison = self.comparison(values)
            above = self._above(comparison, say)
            if linked and shared_link.changed(linked, self.arena.roster):
                reading = say("link.reading.changed")
            else:
                reading = say("explore.reading")
            titles, stream = self.arena.explore(comparison, address=address)
            yield {self.said: above + highlights.message(reading), self.link: ""}
            frame = Frame({"a": "", "b": ""})
            with closing(stream):
                for frame in stream:
                    yield self._panes(titles, frame, say)
            words = (
                shared_link.outcome(linked, self.arena.roster, frame.texts, say) if linked else ""
            )
            words = f"{words} {say.dropped(frame.dropped)}".strip()
            yield {
                self.said: above + highlights.message(words),
                self.link: self._link(comparison, frame.texts, say),
            }
        except Exception as error:
            yield self._refused(error, above, say)

    def row(self, values: Any, say: Texts, address: str | None) -> Iterator[Changes]:
        """The right contender at four strengths of its alignment, with one seed."""
        above = ""
        try:
            asked = self.comparison(values)
            if self.arena.roster[asked.right].adapter is None:
                raise InvalidInput(
                    "The right model has no adapter, so there are no strengths of its alignment to "
                    "show. Choose an aligned one."
                )
            above = self._above(asked, say)
            texts: list[str] = []
            for low, high in (STRENGTHS[:2], STRENGTHS[2:]):
                both = replace(
                    asked, left=asked.right, dial_left=low, dial_right=high, seed_right=None
                )
                _, stream = self.arena.explore(both, address=address)
                words = say("explore.writing", low=FRACTIONS[low], high=FRACTIONS[high])
                yield {self.said: above + highlights.message(words)}
                for frame in stream:
                    last = frame
                texts += [_text(last, side, say) for side in SIDES]
                yield {self.strip: _columns(texts, say)}
            yield {self.said: above}
        except Exception as error:
            yield self._refused(error, above, say)

    def dial(self, contender: Any) -> Any:
        """Show the dial of a contender with an adapter, and none for one without."""
        turned = {one.id for one in self.arena.roster.contenders if one.adapter is not None}
        return gr.update(visible=isinstance(contender, str) and contender in turned)

    def restore(self, parameters: Mapping[str, Any], say: Texts) -> tuple[Changes, Linked | None]:
        """The form as the page's address fills it, and the comparison that it asks for."""
        try:
            linked = shared_link.opened(parameters, self.arena.roster)
        except ArenaError as error:
            return {self.said: highlights.told(error, say)}, None
        if linked is None:
            return {}, None
        return {**self.form.filled(linked.comparison), self.said: ""}, linked

    def _above(self, comparison: Comparison, say: Texts) -> str:
        """What a link put before the text.

        Without this, whoever makes a link could have a model answer what nobody sees.
        """
        turns = comparison.dialogue.turns[:-1]
        if not turns:
            return ""
        unread = [None] * len(turns)
        clear = f'<a class="linkish" href="?">{escape(say("explore.clear"))}</a>'
        return (
            f'<section class="card"><p class="quiet">{escape(say("explore.before"))} {clear}'
            f"</p>{highlights.thread(Dialogue(turns), unread, unread, say)}</section>"
        )

    def _refused(self, error: Exception, above: str, say: Texts) -> Changes:
        """An error below what was said before; in a crisis the way to help, alone."""
        if not isinstance(error, guards.HelpFirst):
            return {self.said: above + highlights.told(error, say)}
        empty: Changes = dict.fromkeys((*self.panes, self.strip, self.link), "")
        return {**empty, self.said: highlights.told(error, say)}

    def comparison(self, values: Any) -> Comparison:
        """What the form asks for; `InvalidInput` also where a stranger sent no numbers at all."""
        try:
            return self._read(*values).checked(self.arena.roster)
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput("The form holds something that cannot be used.") from None

    def _read(
        self,
        before: Any,
        text: Any,
        left: Any,
        right: Any,
        dial_left: Any,
        dial_right: Any,
        seed: Any,
        seed_right: Any,
        temperature: Any,
        top_p: Any,
        penalty: Any,
        tokens: Any,
    ) -> Comparison:
        said = Dialogue.from_messages(before or [])
        return Comparison(
            said.plus("user", clean_text(text, limit=MAX_TEXT)),
            str(left),
            str(right),
            int(seed or 0),
            float(dial_left),
            float(dial_right),
            replace(
                self.arena.roster.decoding,
                temperature=float(temperature),
                top_p=float(top_p),
                repetition_penalty=float(penalty),
                max_new_tokens=int(tokens),
            ),
            None if seed_right is None else int(seed_right),
        )

    def _panes(self, titles: Mapping[str, Shown], frame: Frame, say: Texts) -> Changes:
        """Both panes; once both have ended, the words that only one of them uses are marked."""
        done, small = len(frame.ends) == len(SIDES), is_long(frame.texts.values())
        changes: Changes = {}
        for component, side in zip(self.panes, SIDES, strict=True):
            title, other = titles[side], frame.texts["b" if side == "a" else "a"]
            name = say.contender(title.contender, title.label)
            changes[component] = pane(
                side,
                _text(frame, side, say),
                self._note(title, say),
                say,
                live=side not in frame.ends,
                told=Told(name, other if done else None, done=done),
                small=small,
            )
        return changes

    def _note(self, side: Shown, say: Texts) -> str:
        """With what strength of its adapter and with what guidance a side answers."""
        notes = []
        if self.arena.roster[side.contender].adapter is not None:
            notes.append(say("explore.strength", dial=f"{side.dial:g}"))
        if side.guidance:
            notes.append(say("explore.guided", guidance=side.guidance))
        elif side.guidance_absent:
            notes.append(say("explore.unguided"))
        return " · ".join(notes)

    def _link(self, comparison: Comparison, texts: Mapping[Side, str], say: Texts) -> str:
        """A link that opens the comparison, and whether it promises the same words."""
        try:
            query = shared_link.address(self.arena.roster, comparison, texts)
        except ArenaError as error:
            return highlights.message(say.own(error.public))
        note = "" if self.arena.models.repeatable else say("link.may_differ")
        return highlights.link(query, say, note=note)


def _text(frame: Frame, side: Side, say: Texts) -> str:
    end = frame.ends.get(side)
    return say.own(end.error) if isinstance(end, Failed) else frame.texts[side]


def _columns(texts: list[str], say: Texts) -> str:
    """One column per strength; words that the base's reply has not are marked."""
    cells = ""
    for place, (strength, text) in enumerate(zip(STRENGTHS, texts, strict=False)):
        side: Side = "b" if place else "a"
        told = Told("", texts[0]) if place else None
        cells += pane(side, text, "", say, told=told, letter=FRACTIONS[strength])
    label = escape(say("explore.dial"))
    return f'<div class="strip" tabindex="0" role="group" aria-label="{label}">{cells}</div>'
