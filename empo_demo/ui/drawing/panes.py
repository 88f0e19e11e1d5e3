"""The two replies and, after the vote, who they were and how they differ; as escaped HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from empo_demo.contenders.roster import UNGUIDED
from empo_demo.empathy.feeling import is_content, spans
from empo_demo.ui.drawing.highlights import ENGLISH, lines, tagged
from empo_demo.ui.texts import Texts
from empo_demo.votes.models import SIDES, Side
from empo_demo.votes.verdicts import VERDICTS

if TYPE_CHECKING:
    from empo_demo.arena.rounds import Receipt, SideReveal
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Epitome, Level
    from empo_demo.votes.stats import PairVotes

MECHANISMS = ("er", "ip", "ex")
_QUESTION = re.compile(
    r"\?|(?:^|[.!,]\s+)(?:who|what|when|where|why|how|which|(?:do|did|are|were|have|can) you)\b",
    re.I,
)
"""A question: its mark, or (small models forget it) its first word."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a pane says after the vote: who it was, and what sets it apart from `other`."""

    who: str
    other: str
    levels: Epitome | None = None


def pane(
    side: Side,
    text: str,
    note: str = "",
    say: Texts = ENGLISH,
    *,
    live: bool = False,
    chosen: bool = False,
    feeling: Feeling | None = None,
    told: Told | None = None,
    letter: str = "",
) -> str:
    """One side's reply. `note` is a word on its state, beneath the text; `letter` stands above."""
    caret = '<span class="caret" aria-hidden="true"></span>' if live else ""
    words = tagged(text, _spans(text, feeling, told.other if told else None))
    body = f'<p class="text" dir="auto" lang="en">{words}{caret}</p>' if text or live else ""
    small = f'<p class="note">{escape(note)}</p>' if note else ""
    facts = _facts(text, told, say) if told and text else ""
    sign = letter or side.upper()
    name = f'<span class="was">{escape(told.who)}</span>' if told else ""
    return (
        f'<article class="pane side-{side}{" chosen" if chosen else ""}" '
        f'aria-busy="{str(live).lower()}" aria-label="{escape(say("side", side=sign))}">'
        f'<h3><span class="letter">{sign}</span>{name}</h3>{body}{small}{facts}</article>'
    )


def _spans(text: str, feeling: Feeling | None, other: str | None) -> list[tuple[int, int, str]]:
    """Words that only this reply uses, and words that moved its valence."""
    theirs = {other[s:e].lower() for s, e in spans(other)} if other is not None else None
    pushes = feeling.words if feeling else ()
    moved = {w.start: w.by for w in pushes if feeling and abs(w.by) >= feeling.visible}
    found = []
    for start, end in spans(text):
        kinds = []
        word = text[start:end].lower()
        if theirs is not None and word not in theirs and is_content(word):
            kinds.append("only")
        if start in moved:
            kinds.append("push up" if moved[start] > 0 else "push down")
        if kinds:
            found.append((start, end, f'<span class="{" ".join(kinds)}">'))
    return found


def _facts(text: str, told: Told, say: Texts) -> str:
    """Length, question or statement, how warm it is with its error, and the means as details."""
    count = len(text.split())
    facts = [
        say.count("pane.words", count),
        say("pane.question" if _QUESTION.search(text) else "pane.statement"),
    ]
    shown = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    if told.levels is None:
        return f'<ul class="facts">{shown}</ul>'
    return f'<ul class="facts">{shown}{_warmth(told.levels.er, say)}</ul>{_means(told.levels, say)}'


def _warmth(level: Level, say: Texts) -> str:
    """The expected level of emotional reactions from 0 to 2, with its standard deviation."""
    low, high = max(0.0, level.mean - level.error), min(2.0, level.mean + level.error)
    at, left, right = (4 + 26 * value for value in (level.mean, low, high))
    figure = say(
        "level.er.figure",
        value=say.number(f"{level.mean:.1f}"),
        error=say.number(f"{level.error:.1f}"),
    )
    return (
        f'<li class="warmth">{escape(say("level.er"))} <svg viewBox="0 0 60 12" role="img" '
        f'aria-label="{escape(figure)}"><title>{escape(figure)}</title>'
        '<line class="scale" x1="4" x2="56" y1="6" y2="6"/>'
        f'<line class="error" x1="{left:.1f}" x2="{right:.1f}" y1="6" y2="6"/>'
        f'<circle cx="{at:.1f}" cy="6" r="4"/></svg></li>'
    )


def _means(levels: Epitome, say: Texts) -> str:
    """EPITOME's levels: which means a reply uses, not whether it fits."""
    dots = ""
    for name in MECHANISMS:
        level = getattr(levels, name).level
        how = say(f"level.{level}")
        dots += (
            f'<li class="level l{level}">{escape(say(f"level.{name}"))} '
            f'<i aria-hidden="true">{"●" * level}{"○" * (2 - level)}</i>'
            f'<span class="sr"> {escape(how)}</span></li>'
        )
    return (
        f'<details class="means"><summary>{escape(say("reveal.details"))}</summary>'
        f'<p class="quiet">{escape(say("level.means"))}</p><ul class="facts">{dots}</ul></details>'
    )


def reveal(
    receipt: Receipt,
    say: Texts = ENGLISH,
    *,
    recorded: bool = False,
    rehearsal: bool = False,
    kept: bool = True,
    agreed: bool = False,
    others: PairVotes | None = None,
) -> str:
    """Who was who, in a sentence; what comes next; the rest folded."""
    sides = {"a": receipt.reveal.a, "b": receipt.reveal.b}
    preferred = VERDICTS[receipt.verdict].preferred
    said = say.verdict(receipt.verdict, "said")
    if preferred:
        head = say("verdict.chose", said=escape(said), who=_who(sides[preferred], say))
    else:
        head = say(
            "verdict.goes_on", said=escape(said), side=f"<b>{receipt.reveal.chosen.upper()}</b>"
        )
    rows = "".join(
        f'<li class="side-{name}"><span class="letter">{name.upper()}</span> '
        f"<span>{_who(side, say)}{_figures(side, say)}{_guidance(side, say)}</span></li>"
        for name, side in sides.items()
    )
    step = "reveal.go_on.recorded" if recorded else "reveal.go_on"
    following = say("reveal.rehearsal" if rehearsal else step)
    extra = "" if kept or rehearsal else f"<p>{escape(say('consent.uncounted'))}</p>"
    if others is not None:
        extra += f"<p>{escape(_others(others, receipt, say))}</p>"
    if agreed and not rehearsal:
        extra += f"<p>{escape(say('reveal.counts'))}</p>"
    folded = ""
    if not rehearsal:
        number = say("reveal.receipt", receipt=f"<code>{escape(receipt.receipt)}</code>")
        folded = (
            f"<details><summary>{escape(say('reveal.details'))}</summary><ul>{rows}</ul>"
            f'<p class="quiet">{number}</p></details>'
        )
    return (
        f'<section class="card reveal" role="status"><h3>{head}</h3>{extra}'
        f'<p class="quiet">{escape(following)} {escape(say("pane.only"))}</p>{folded}</section>'
    )


def who(side: SideReveal, say: Texts = ENGLISH) -> str:
    """A side's contender for people; not escaped."""
    return say.contender(side.contender, side.label)


def _who(side: SideReveal, say: Texts) -> str:
    return f"<b>{escape(who(side, say))}</b>"


def _others(others: PairVotes, receipt: Receipt, say: Texts) -> str:
    names: Mapping[str, str] = {s: who(getattr(receipt.reveal, s), say) for s in SIDES}
    return say(
        "reveal.others",
        n=others.votes,
        one=others.one,
        two=others.other,
        rest=others.neither,
        one_name=names["a"],
        two_name=names["b"],
    )


def _figures(side: SideReveal, say: Texts) -> str:
    name = escape(side.contender.removesuffix(UNGUIDED))
    tokens = f", {escape(say.count('reveal.tokens', side.tokens))}" if side.tokens else ""
    return f' <span class="quiet">({name}, {escape(side.revision[:12])}{tokens})</span>'


def _guidance(side: SideReveal, say: Texts) -> str:
    if side.guidance_absent:
        return f'<p class="quiet">{escape(say("reveal.guidance.absent"))}</p>'
    if not side.guidance:
        return ""
    return (
        f"<details><summary>{escape(say('reveal.guidance'))}</summary>"
        f'<p class="guidance" lang="en">{lines(side.guidance)}</p></details>'
    )
