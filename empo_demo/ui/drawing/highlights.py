"""Dialogues, readings, notices and plain tables as HTML.

Everything that a person or a model wrote passes `html.escape`; class names and colours come from
fixed sets. Pure functions: records in, markup out.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from empo_demo.arena.guards import HelpFirst
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import GROUP_OF, GROUPS
from empo_demo.errors import ArenaError
from empo_demo.ui.examples import examples as known_examples
from empo_demo.ui.texts import Texts, texts_of

if TYPE_CHECKING:
    from empo_demo.arena.rounds import Notice
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Cause, Reading

log = logging.getLogger(__name__)
SIGNS = {
    "joy": "☀",
    "trust": "⚘",
    "fear": "≋",
    "surprise": "✧",
    "sadness": "☂",
    "disgust": "⊘",
    "anger": "⚡",
    "anticipation": "➹",
}
STEPS = ("read", "write", "vote")
LONG, FOLDED = 300, 600
"""The characters from which a text is set smaller, and from which a turn is folded."""
ENGLISH = texts_of("en")
GENERAL = ENGLISH("general")
"""The message for an error in our own code."""


def steps(
    now: str | None,
    say: Texts = ENGLISH,
    *,
    rehearsal: bool = False,
    waiting: bool = False,
    turn: tuple[int, int] | None = None,
) -> str:
    """Return the three steps of a round. `now` is one of `STEPS`, "done", or None for nothing.

    `waiting` tells page.js that the box takes no text until the vote. `turn` is which one of how
    many rounds in a row it is.
    """
    if now is None:
        return ""
    place = len(STEPS) if now == "done" else STEPS.index(now)
    rows = ""
    for i, name in enumerate(STEPS):
        kind = "done" if i < place else "now" if i == place else "next"
        current = ' aria-current="step"' if i == place else ""
        rows += f'<li class="{kind}"{current}>{escape(say(f"steps.{name}"))}</li>'
    tag = f'<span class="tag">{escape(say("steps.rehearsal"))}</span>' if rehearsal else ""
    label = escape(say("steps.label"))
    wait = " data-waiting" if waiting else ""
    bar = _bar(*turn, say) if turn else ""
    listed = f'<ol class="steps" aria-label="{label}">{rows}</ol>'
    return f'{bar}<div class="step-row"{wait}>{listed}{tag}</div>'


def _bar(turn: int, last: int, say: Texts) -> str:
    words = escape(say("ten.bar", n=turn, all=last))
    first = f'<p class="quiet" data-say>{escape(say("ten.told"))}</p>' if turn == 1 else ""
    return (
        f'<div class="turns"><progress max="{last}" value="{turn}" aria-label="{words}"></progress>'
        f"<span data-say>{words}</span></div>{first}"
    )


def examples(say: Texts = ENGLISH, *, current: str = "", busy: bool = False) -> str:
    """Return one button per example. They are disabled while a round is `busy`.

    The row is one stop of the Tab key, at the `current` one; page.js moves it with the arrow keys.
    """
    titles = [example.title for example in known_examples()]
    stop = titles.index(current) if current in titles else 0
    buttons = "".join(
        f'<button type="button" class="example" data-i="{i}" lang="en" '
        f'tabindex="{0 if i == stop else -1}" '
        f'aria-pressed="{str(title == current).lower()}"{" disabled" if busy else ""}>'
        f"{escape(title)}</button>"
        for i, title in enumerate(titles)
    )
    label = escape(say("examples.label"))
    # The row scrolls: without a button to focus, it takes the focus itself.
    focus = ' tabindex="0"' if busy else ""
    return f'<div class="example-row" role="toolbar" aria-label="{label}"{focus}>{buttons}</div>'


def thread(
    dialogue: Dialogue,
    readings: Sequence[Reading | None],
    feelings: Sequence[Feeling | None],
    say: Texts = ENGLISH,
) -> str:
    """The conversation so far. `readings` has one entry per turn (None where it is not shown)."""
    if not dialogue.turns:
        return ""
    rows = []
    for turn, reading, feeling in zip(dialogue.turns, readings, feelings, strict=True):
        if turn.role == "user":
            causes = reading.marks if reading else ()
            body = saying(turn.content, marked(turn.content, causes, feeling, say), say)
            if reading:
                body += f'<p class="said">{in_words(reading, say)}</p>'
            who, kind = say("who.you"), "user"
        else:
            body = saying(turn.content, lines(turn.content), say, lang="en")
            who, kind = say("who.reply"), "reply"
        rows.append(
            f'<li class="turn {kind}"><b class="who">{escape(who)}</b><div>{body}</div></li>'
        )
    return f'<ol class="thread">{"".join(rows)}</ol>'


def saying(text: str, markup: str, say: Texts = ENGLISH, *, lang: str = "") -> str:
    """A turn, which is `text` and shown as `markup`: small if it is long, folded if very long."""
    language = f' lang="{lang}"' if lang else ""
    kind = "saying long" if len(text) > LONG else "saying"
    whole = f'<p class="{kind}" dir="auto"{language}>{markup}</p>'
    if len(text) <= FOLDED:
        return whole
    start = textwrap.shorten(text, LONG, placeholder="…")
    more = escape(say("fold.more", n=say.number(f"{len(text):,}")))
    return (
        f'<details class="folded"><summary><span class="start {kind}" dir="auto"{language}>'
        f'{escape(start)}</span> <span class="more all">{more}</span>'
        f'<span class="more less">{escape(say("fold.less"))}</span></summary>{whole}</details>'
    )


def marked(
    text: str, causes: Sequence[Cause], feeling: Feeling | None = None, say: Texts = ENGLISH
) -> str:
    """`text` with its cause words underlined, the more the higher their weight.

    Each mark says on hover, focus and touch what it means. Words that moved the valence carry a
    class that shows while the plot is pointed at.
    """
    spans: list[tuple[int, int, str]] = []
    position = 0
    for cause in causes:
        if cause.start < position or cause.end > len(text) or cause.end <= cause.start:
            continue
        level = f"w{1 + sum(cause.weight >= bound for bound in (0.35, 0.65))}"
        word = text[cause.start : cause.end]
        why = escape(say("cause.why", word=word, strength=say(f"cause.{level}")))
        tag = (
            f'<mark class="cause {level}{_push(feeling, cause.start, cause.end)}" tabindex="0" '
            f'data-why="{why}" aria-description="{why}">'
        )
        spans.append((cause.start, cause.end, tag))
        position = cause.end
    taken = [(start, end) for start, end, _ in spans]
    for push in feeling.words if feeling else ():
        free = all(push.end <= start or push.start >= end for start, end in taken)
        kind = _push(feeling, push.start, push.end)
        if free and kind:
            spans.append((push.start, push.end, f'<span class="{kind.strip()}">'))
    return tagged(text, spans)


def tagged(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    """`text` escaped, with an opening tag of ours around each (start, end); none may overlap."""
    parts, position = [], 0
    for start, end, tag in sorted(spans):
        if start < position or end > len(text):
            continue
        name = tag[1:].split(" ", 1)[0]
        parts.append(f"{lines(text[position:start])}{tag}{lines(text[start:end])}</{name}>")
        position = end
    return "".join(parts) + lines(text[position:])


def _push(feeling: Feeling | None, start: int, end: int) -> str:
    """The class of a word that moved the valence of its text, if it did."""
    if feeling is None:
        return ""
    by = sum(w.by for w in feeling.words if w.start < end and w.end > start)
    return "" if abs(by) < feeling.visible else " push up" if by > 0 else " push down"


def in_words(reading: Reading, say: Texts = ENGLISH) -> str:
    """The emotion as one would say it, with the sign and colour of its group."""
    if reading.abstains:
        return f'<span class="chip unsure">{escape(say.certainty(reading))}</span>'
    group = GROUP_OF[reading.emotions[0][0]]
    quiet = " unsure" if reading.certainty.kind == "unsure" else ""
    return (
        f'<span class="chip g-{group}{quiet}" title="{escape(say(f"group.{group}"))}">'
        f'<i aria-hidden="true">{SIGNS[group]}</i> {escape(say.certainty(reading))}</span>'
    )


def heard(
    reading: Reading | None,
    say: Texts = ENGLISH,
    *,
    hidden: bool = False,
    written: bool = True,
) -> str:
    """The panel "What was heard": the emotion in words, the cause words, the bars as detail.

    Without a reading it says why: nothing `written` yet, `hidden` until the vote, or no answer. Of
    a reading that abstains it says only why.
    """
    head = f'<section class="card heard"><h3>{escape(say("heard.title"))}</h3>'
    if reading is None:
        why = "heard.unwritten" if not written else "heard.hidden" if hidden else "heard.failed"
        return f'{head}<p class="quiet">{escape(say(why))}</p></section>'
    if reading.abstains:
        return f'{head}<p class="big">{in_words(reading, say)}</p></section>'
    bars = "".join(
        f'<li><span class="name">{escape(say.emotion(label))}</span><span class="bar '
        f'g-{GROUP_OF[label]}"><span style="width:{100 * p:.1f}%"></span></span>'
        f'<span class="value">{say.number(f"{p:.0%}")}</span></li>'
        for label, p in reading.emotions[:5]
    )
    words = ", ".join(f"<b>{lines(cause.text)}</b>" for cause in reading.marks)
    legend = "".join(
        f'<span class="chip g-{group}"><i aria-hidden="true">{SIGNS[group]}</i> '
        f"{escape(say(f'group.{group}'))}</span>"
        for group in GROUPS
    )
    return (
        f'{head}<p class="big">{in_words(reading, say)}</p>'
        f'<p class="words">{escape(say("heard.words"))} {words or escape(say("heard.none"))}</p>'
        f'<details><summary>{escape(say("heard.bars"))}</summary><ul class="bars">{bars}</ul>'
        f'<p class="quiet">{escape(say("heard.note"))}</p></details>'
        f"<details><summary>{escape(say('heard.legend'))}</summary>"
        f'<div class="chips">{legend}</div></details></section>'
    )


def notices(given: Sequence[Notice], say: Texts = ENGLISH) -> str:
    """Return the notices, each with its links."""
    cards = []
    for notice in given:
        links = "".join(
            f'<li><a href="{escape(url)}" target="_blank" rel="noopener noreferrer">'
            f"{escape(say.own(title))}</a></li>"
            for title, url in notice.links
        )
        kind = "crisis" if notice.kind == "crisis" else "hint"
        cards.append(
            f'<section class="card notice {kind}" data-say>'
            f"<h3>{escape(say.own(notice.title))}</h3>"
            f"<p>{lines(say.own(notice.text))}</p>{f'<ul>{links}</ul>' if links else ''}</section>"
        )
    return "".join(cards)


def consent(text: str, say: Texts = ENGLISH) -> str:
    """Return the question of consent: two sentences, and the whole text folded.

    It takes the focus when it appears, so that it is read aloud and Tab leads to its answers.
    """
    return (
        '<div class="consent-text" role="group" tabindex="-1" aria-labelledby="consent-heading" '
        f'aria-describedby="consent-short"><h3 id="consent-heading">'
        f"{escape(say('consent.heading'))}</h3>"
        f'<p id="consent-short">{escape(say("consent.short"))}</p><details><summary>'
        f"{escape(say('consent.whole'))}</summary><div>{paragraphs(text)}</div>"
        "</details></div>"
    )


def paragraphs(text: str) -> str:
    """Plain text, one paragraph per line."""
    return "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line.strip())


def message(text: str, *, error: bool = False, keys: str = "") -> str:
    """One line on what is going on or what went wrong; `keys` is hidden where there are none.

    `data-say` marks what page.js puts into the page's one live region.
    """
    if not text:
        return ""
    kind = "error" if error else "state"
    hint = f' <span class="keys">{escape(keys)}</span>' if keys else ""
    return f'<p class="message {kind}" data-say>{escape(text)}{hint}</p>'


def told(error: Exception, say: Texts = ENGLISH) -> str:
    """Return an error as one line, or as the card of help in a crisis.

    An error that is not an `ArenaError` gets a general sentence.
    """
    if isinstance(error, HelpFirst):
        return notices([error.notice], say)
    if isinstance(error, ArenaError):
        return message(say.own(error.public), error=True)
    log.error("A handler failed", exc_info=error)
    return message(say("general"), error=True)


def link(query: str, say: Texts = ENGLISH, *, note: str = "") -> str:
    """Return the link of a comparison with a button that copies it."""
    more = f'<span class="quiet">{escape(note)}</span>' if note else ""
    return (
        f'<p class="link"><a href="{escape(query)}">{escape(say("link"))}</a> '
        f'<button type="button" class="linkish" data-copy="{escape(query)}" '
        f'data-done="{escape(say("link.copied"))}">'
        f"{escape(say('link.copy'))}</button> {more}</p>"
    )


def lines(text: str) -> str:
    """`text` escaped, its line breaks kept."""
    return escape(text).replace("\n", "<br>")


def table_of_rows(rows: Sequence[Mapping[str, str]], say: Texts) -> str:
    """A table of dictionaries that share their keys, in the words of `say`; empty without rows."""
    if not rows:
        return ""
    lines = [list(map(say.own, row.values())) for row in rows]
    return table_of_lines(list(map(say.own, rows[0])), lines)


def table_of_lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a head; wide ones scroll inside their own frame."""
    top = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return (
        f'<div class="frame" tabindex="0"><table class="tally"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
