"""Dialogues, replies, readings and notices as HTML.

Everything that a person or a model wrote passes `html.escape`; class names and colours come from
fixed sets. Pure functions: records in, markup out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from empo_demo.contenders.roster import UNGUIDED
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import GROUP_OF, GROUPS
from empo_demo.votes.verdicts import VERDICTS

if TYPE_CHECKING:
    from empo_demo.arena.rounds import Notice, Receipt, SideReveal, Status
    from empo_demo.empathy.sem import Cause, Reading
    from empo_demo.votes.models import Side

CHIPS = 3
SIGNS = {
    "joy": "☀", "trust": "⚘", "fear": "≋", "surprise": "✧",
    "sadness": "☂", "disgust": "⊘", "anger": "⚡", "anticipation": "➹",
}  # fmt: skip
BEGIN = {
    False: "Write what happened to you, or choose an example.",
    True: "Take one of the recorded dialogues.",
}
"""How to begin, by whether the replies are recorded ones."""
GO_ON = {
    False: "Write on below: both models see the reply that you chose.",
    True: "Go on with the next dialogue.",
}
_LEGEND = "".join(
    f'<span class="chip g-{group}"><i aria-hidden="true">{SIGNS[group]}</i> {group}</span>'
    for group in GROUPS
)


def thread(
    dialogue: Dialogue,
    readings: Sequence[Reading | None],
    valences: Sequence[float],
    *,
    recorded: bool = False,
) -> str:
    """The conversation so far. `readings` has one entry per turn (None where it is not shown)."""
    if not dialogue.turns:
        return (
            f'<div class="thread empty"><p>{BEGIN[recorded]} Two models will answer, side by side. '
            "You will not know which is which until you have voted.</p></div>"
        )
    rows = []
    for turn, reading, valence in zip(dialogue.turns, readings, valences, strict=True):
        if turn.role == "user":
            causes = reading.causes if reading else ()
            body = f'<p dir="auto">{marked(turn.content, causes)}</p>'
            if reading:
                body += chips(reading, valence)
            rows.append(f'<li class="turn user"><b class="who">You</b><div>{body}</div></li>')
        else:
            body = f'<p dir="auto">{_lines(turn.content)}</p>'
            rows.append(f'<li class="turn reply"><b class="who">Reply</b><div>{body}</div></li>')
    return f'<ol class="thread">{"".join(rows)}</ol>'


def marked(text: str, causes: Sequence[Cause]) -> str:
    """`text` with its cause words underlined, the more the higher their weight."""
    parts, position = [], 0
    for cause in causes:
        if cause.start < position or cause.end > len(text):
            continue
        parts.append(_lines(text[position : cause.start]))
        level = 1 + sum(cause.weight >= bound for bound in (0.35, 0.65))
        title = f"cause word, weight {cause.weight:.2f}"
        word = _lines(text[cause.start : cause.end])
        parts.append(f'<mark class="cause w{level}" title="{title}">{word}</mark>')
        position = cause.end
    return "".join(parts) + _lines(text[position:])


def chips(reading: Reading, valence: float | None = None) -> str:
    """The likeliest emotions with their probabilities, and how positive the words are."""
    shown = "".join(
        f'<span class="chip g-{GROUP_OF[label]}" title="{GROUP_OF[label]}">'
        f'<i aria-hidden="true">{SIGNS[GROUP_OF[label]]}</i> {label} <b>{p:.0%}</b></span>'
        for label, p in reading.emotions[:CHIPS]
    )
    words = "" if valence is None else f'<span class="value">valence {valence:+.2f}</span>'
    return f'<div class="chips">{shown}{words}</div>'


def heard(reading: Reading | None, *, hidden: bool = False, written: bool = True) -> str:
    """The panel "What was heard": bars of the first emotions, the cause words, the legend.

    Without a reading it says why: nothing `written` yet, `hidden` until the vote, or no answer.
    """
    if reading is None:
        why = "The emotion model did not answer this time; the round goes on without it."
        if not written:
            why = "Emotions and cause words appear here once you have written something."
        elif hidden:
            why = "Shown after your vote, so that it cannot sway you."
        head = '<section class="card heard"><h3>What was heard</h3>'
        return f'{head}<p class="quiet">{why}</p></section>'
    bars = "".join(
        f'<li><span class="name">{label}</span><span class="bar g-{GROUP_OF[label]}">'
        f'<span style="width:{100 * p:.1f}%"></span></span><span class="value">{p:.0%}</span></li>'
        for label, p in reading.emotions[:5]
    )
    words = ", ".join(
        f'<mark class="cause w2" title="weight {c.weight:.2f}">{escape(c.text)}</mark>'
        for c in reading.causes
    )
    return (
        f'<section class="card heard"><h3>What was heard</h3><ul class="bars">{bars}</ul>'
        f'<p class="words">Words that carry it: {words or "none"}</p>'
        f'<details><summary>What the colours mean</summary><div class="chips">{_LEGEND}</div>'
        '<p class="quiet">The emotion model guesses; its per cents say how sure it is. Underlined '
        "words are those it takes for the cause.</p></details></section>"
    )


def pane(side: Side, text: str, note: str = "", *, live: bool = False, chosen: bool = False) -> str:
    """One side's reply. `note` is a word on its state, beneath the text."""
    caret = '<span class="caret" aria-hidden="true"></span>' if live else ""
    body = f'<p dir="auto">{_lines(text)}{caret}</p>' if text or live else ""
    small = f'<p class="note">{escape(note)}</p>' if note else ""
    tick = " chosen" if chosen else ""
    return (
        f'<article class="pane side-{side}{tick}" aria-busy="{str(live).lower()}">'
        f'<h3><span class="letter">{side.upper()}</span> Side {side.upper()}</h3>{body}{small}'
        "</article>"
    )


def reveal(receipt: Receipt, *, recorded: bool = False) -> str:
    """Who was who, in a sentence; what the SEM told a guided side; the receipt."""
    sides = {"a": receipt.reveal.a, "b": receipt.reveal.b}
    kind = VERDICTS[receipt.verdict]
    if kind.preferred:
        told = f"{kind.said}: {_who(sides[kind.preferred])}."
    else:
        told = f"{kind.said}. The dialogue goes on with {receipt.reveal.chosen.upper()}."
    rows = "".join(
        f'<li class="side-{name}"><span class="letter">{name.upper()}</span> '
        f"<span>{_who(side)}{_figures(side)}{_guidance(side)}</span></li>"
        for name, side in sides.items()
    )
    return (
        f'<section class="card reveal" role="status"><h3>{told}</h3><ul>{rows}</ul>'
        f'<p class="quiet">Receipt <code>{escape(receipt.receipt)}</code>. Your votes are under '
        f"Data. {GO_ON[recorded]}</p></section>"
    )


def notices(found: Sequence[Notice]) -> str:
    """What to say before the replies; each with its links."""
    cards = []
    for notice in found:
        links = "".join(
            f'<li><a href="{escape(url)}" target="_blank" rel="noopener noreferrer">'
            f"{escape(title)}</a></li>"
            for title, url in notice.links
        )
        kind = "crisis" if notice.kind == "crisis" else "hint"
        cards.append(
            f'<section class="card notice {kind}" role="alert"><h3>{escape(notice.title)}</h3>'
            f"<p>{_lines(notice.text)}</p>{f'<ul>{links}</ul>' if links else ''}</section>"
        )
    return "".join(cards)


def consent(text: str) -> str:
    """The consent card's text."""
    return f'<div class="consent-text"><h3>Before you write</h3>{paragraphs(text)}</div>'


def paragraphs(text: str) -> str:
    """Plain text, one paragraph per line."""
    return "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line.strip())


def message(text: str, *, error: bool = False) -> str:
    """One line on what is going on or what went wrong."""
    if not text:
        return ""
    role, kind = ("alert", "error") if error else ("status", "state")
    return f'<p class="message {kind}" role="{role}">{escape(text)}</p>'


def badge(status: Status) -> str:
    """The state of the models, and that the embedded ones are tiny."""
    words = {"loading": "models are loading…", "ready": "ready", "failed": "models not available"}
    name = "tiny" if status.tiny else "own models"
    title = "; ".join(f"{key}: {value}" for key, value in status.details.items())
    return (
        f'<span class="badge {status.state}" title="{escape(title or status.message)}">'
        f'<i></i>{name}<span class="state"> · {words[status.state]}</span></span>'
    )


def _who(side: SideReveal) -> str:
    return f"<b>{escape(side.label or side.contender)}</b>"


def _figures(side: SideReveal) -> str:
    name = escape(side.contender.removesuffix(UNGUIDED))
    revision = f' <span class="quiet">({name}, {escape(side.revision[:12])}'
    tokens = f", {side.tokens} tokens" if side.tokens else ""
    return f"{revision}{tokens})</span>"


def _guidance(side: SideReveal) -> str:
    if side.guidance_absent:
        return (
            '<p class="quiet">It would have been guided by the emotion model, which did not '
            "answer: it answered without.</p>"
        )
    if not side.guidance:
        return ""
    return (
        "<details><summary>What the emotion model told it</summary>"
        f'<p class="guidance">{_lines(side.guidance)}</p></details>'
    )


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
