"""The share card: a finished comparison as one picture, made on request and kept nowhere.

It names no voter and no receipt. What an export would hold back (crisis language, personal data,
a question for the models' identity) gets no card.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from empo_demo.arena import guards
from empo_demo.errors import ArenaError, NotAllowed
from empo_demo.ui import shared_link
from empo_demo.ui.drawing import highlights, panes
from empo_demo.ui.texts import Texts
from empo_demo.ui.theme import LOOK
from empo_demo.votes.models import SIDES

if TYPE_CHECKING:
    from empo_demo.arena.rounds import RoundView
    from empo_demo.contenders.roster import Roster

WIDTH, PAD = 1200, 60
_LINE, _FONT = 34, 24
_SIDE = {"a": "#0f6973", "b": "#9c4a12"}
_BOLD = 1.12
"""How much wider bold letters are."""
MOST_LINES = 9
_MARK = (
    '<g transform="translate(56 10) scale(1.1)">'
    + re.sub(r"</?svg[^>]*>", "", (LOOK / "mark.svg").read_text(encoding="utf8"))
    + "</g>"
)


def share_card(
    view: RoundView, roster: Roster, country: str, say: Texts, *, repeatable: bool = True
) -> str:
    """Return the picture with a button that saves it, and a link that opens the comparison.

    The link promises the same words only if the engine is `repeatable`.

    Raises `NotAllowed` if the round has no vote, or if exports would hold it back.
    """
    if view.receipt is None:
        raise NotAllowed(say("share.vote_first"))
    flags = guards.assess(view.dialogue, country)
    if flags.crisis or flags.personal or flags.identity:
        raise NotAllowed(say("share.held"))
    link = _link(view, roster, say, repeatable)
    return figure(svg(view, say), say("share.alt"), say, link)


def figure(drawn: str, alt: str, say: Texts, more: str = "") -> str:
    """An SVG picture with a button that saves it; `more` is markup beside the button."""
    picture = "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
    return (
        f'<figure class="card share"><img src="{picture}" alt="{escape(alt)}" width="{WIDTH}">'
        f'<figcaption><button type="button" class="linkish" data-png="empo-arena.png">'
        f"{escape(say('share.save'))}</button>{more}</figcaption></figure>"
    )


def _link(view: RoundView, roster: Roster, say: Texts, repeatable: bool) -> str:
    comparison = shared_link.of_round(view, roster)
    if comparison is None:
        return ""
    texts = {side: view.replies[side].text for side in SIDES}
    stopped = any(view.replies[side].reason == "stopped" for side in SIDES)
    note = "" if repeatable else say("link.may_differ")
    try:
        query = shared_link.address(roster, comparison, None if stopped else texts)
        return highlights.link(query, say, note=note)
    except ArenaError as error:
        return highlights.message(say.own(error.public))


def svg(view: RoundView, say: Texts) -> str:
    """Return the card as SVG: the text, both replies, who wrote them, and which one was chosen."""
    assert view.receipt is not None, "only a voted round has a card"
    wide = (WIDTH - 2 * PAD - 30) / 2
    said = _wrap(view.dialogue.turns[-1].content, WIDTH - 2 * PAD)
    replies = {side: _wrap(view.replies[side].text, wide - 44) for side in SIDES}
    names = {
        side: _wrap(
            f"{side.upper()} · {panes.who(getattr(view.receipt.reveal, side), say)}",
            (wide - 44) / _BOLD,
        )
        for side in SIDES
    }
    first = 84 + _LINE * (max(map(len, names.values())) - 1)
    top = 120 + _LINE * len(said)
    tall = first + 12 + _LINE * max(map(len, replies.values()))
    height = top + tall + 90
    shapes = [
        text(PAD, 118, said, "#2a1f2b", 'font-family="Georgia, serif"'),
    ]
    for place, side in enumerate(SIDES):
        x, colour = PAD + place * (wide + 30), _SIDE[side]
        chosen = view.receipt.reveal.chosen == side
        shapes += [
            f'<rect x="{x}" y="{top}" width="{wide}" height="{tall}" rx="18" fill="#fffdfb" '
            f'stroke="{colour}" stroke-width="{5 if chosen else 1.5}"/>',
            text(x + 22, top + 42, names[side], colour, 'font-weight="700"'),
            text(x + 22, top + first, replies[side], "#2a1f2b"),
        ]
    verdict = say.verdict(view.receipt.verdict, "noun")
    shapes.append(text(PAD, height - 34, [verdict], "#6b2452", 'font-weight="600"'))
    return framed(shapes, height)


def framed(shapes: Iterable[str], height: float) -> str:
    """The SVG of a card: `shapes` under the arena's band."""
    title = text(PAD + 56, 42, ["EmPO Arena"], "#fdf3ea", 'font-weight="600"')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="{_FONT}">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fbf6f1"/>'
        f'<rect width="{WIDTH}" height="64" fill="#4f1a3d"/>{_MARK}'
        f"{title}{''.join(shapes)}</svg>"
    )


def _wrap(words: str, room: float) -> list[str]:
    """Break `text` into lines that `room` pixels hold, whatever sans serif a machine has."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _fitting(longer, room) == len(longer):
            lines[-1] = longer
            continue
        while (cut := _fitting(word, room)) < len(word):
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return (lines or ["–"]) if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]


def _fitting(text: str, room: float) -> int:
    """Return how many first characters of `text` fit in `room` pixels, but at least one."""
    wide = 0.0
    for place, character in enumerate(text):
        wide += _FONT * _em(character)
        if wide > room:
            return max(1, place)
    return len(text)


def _em(character: str) -> float:
    """Return how wide a character is at most, as in DejaVu Sans, one of the widest fonts."""
    if character in "MW@%mw—…ÆŒ#+=<>~&" or ord(character) > 0x2E7F:
        return 1.0
    if character in "fijltrI.,;:!'|()[]/ ’":
        return 0.42
    return 0.79 if character.isupper() else 0.64


def text(x: float, y: float, lines: list[str], colour: str, more: str = "") -> str:
    rows = "".join(
        f'<tspan x="{x}" dy="{_LINE if i else 0}">{escape(_printable(line))}</tspan>'
        for i, line in enumerate(lines)
    )
    return f'<text x="{x}" y="{y}" fill="{colour}" {more}>{rows}</text>'


def _printable(text: str) -> str:
    """Remove the control characters that XML forbids."""
    return "".join(c for c in text if c.isprintable())
