"""The two replies and, after the vote, who they were and how they differ; as escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from empo_demo.contenders.roster import UNGUIDED
from empo_demo.empathy.feeling import is_content, spans
from empo_demo.metrics.lexical import asks
from empo_demo.ui.drawing.highlights import ENGLISH, LONG, lines, tagged
from empo_demo.ui.texts import Texts
from empo_demo.votes.models import SIDES, VERDICTS, Side

if TYPE_CHECKING:
    from empo_demo.arena.rounds import Receipt, SideReveal
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Epitome, Level
    from empo_demo.votes.stats import PairVotes

MECHANISMS = ("er", "ip", "ex")


@dataclass(frozen=True, slots=True)
class Told:
    """Who a side is, once that may be told. Words that `other` has not are marked; `levels` and the
    facts of a reply that is `done` stand beneath it."""

    who: str
    other: str | None = None
    levels: Epitome | None = None
    done: bool = True


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
    small: bool = False,
) -> str:
    """One side's reply. `note` is a word on its state, beneath the text; `letter` stands above.

    `small` is the type of both sides as soon as one of them is long.
    """
    caret = '<span class="caret" aria-hidden="true"></span>' if live else ""
    words = tagged(text, _spans(text, feeling, told.other if told else None))
    kind = "text long" if small else "text"
    body = f'<p class="{kind}" dir="auto" lang="en">{words}{caret}</p>' if text or live else ""
    state = f'<p class="note">{escape(note)}</p>' if note else ""
    facts = _facts(text, told, say) if told and told.done and text else ""
    sign = letter or side.upper()
    name = f'<span class="was">{escape(told.who)}</span>' if told and told.who else ""
    return (
        f'<article class="pane side-{side}{" chosen" if chosen else ""}" '
        f'aria-busy="{str(live).lower()}" aria-label="{escape(say("side", side=sign))}">'
        f'<h3><span class="letter">{sign}</span>{name}</h3>{body}{state}{facts}</article>'
    )


def _spans(text: str, feeling: Feeling | None, other: str | None) -> list[tuple[int, int, str]]:
    """Words that only this reply uses, and words that moved its valence."""
    theirs = {other[s:e].lower() for s, e in spans(other)} if other is not None else None
    pushes = feeling.words if feeling else ()
    moved = {w.start: w.by for w in pushes if feeling and abs(w.by) >= feeling.visible}
    marks = []
    for start, end in spans(text):
        kinds = []
        word = text[start:end].lower()
        if theirs is not None and word not in theirs and is_content(word):
            kinds.append("only")
        if start in moved:
            kinds.append("push up" if moved[start] > 0 else "push down")
        if kinds:
            marks.append((start, end, f'<span class="{" ".join(kinds)}">'))
    return marks


def _facts(text: str, side: Told, say: Texts) -> str:
    """Length, question or statement, how warm it is with its error, and the means as details."""
    count = len(text.split())
    facts = [
        say.count("pane.words", count),
        say("pane.question" if asks(text) else "pane.statement"),
    ]
    shown = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    if side.levels is None:
        return f'<ul class="facts">{shown}</ul>'
    return f'<ul class="facts">{shown}{_warmth(side.levels.er, say)}</ul>{_means(side.levels, say)}'


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


def is_long(replies: Iterable[str]) -> bool:
    """Whether one of a round's replies is so long that both are set in small type."""
    return any(len(text) > LONG for text in replies)


def reveal(
    receipt: Receipt,
    say: Texts = ENGLISH,
    *,
    rehearsal: bool = False,
    kept: bool = True,
    helped: int | None = None,
    others: PairVotes | None = None,
) -> str:
    """Who was who, what the vote is good for, how others voted; the rest folded.

    `helped` is the number of the voter's pairs, None for one whose votes train nothing. `others`
    are the votes of other people on the same situation, None where they may not be told.
    """
    sides = {"a": receipt.reveal.a, "b": receipt.reveal.b}
    preferred = VERDICTS[receipt.verdict].preferred
    said = say.verdict(receipt.verdict, "said")
    if preferred:
        head = say("verdict.chose", said=escape(said), who=_who(sides[preferred], say))
    else:
        head = say(
            "verdict.goes_on", said=escape(said), side=f"<b>{receipt.reveal.chosen.upper()}</b>"
        )
    told = [say("reveal.who", a=who(sides["a"], say), b=who(sides["b"], say))]
    if receipt.reveal.attention_check:
        told.append(say("reveal.check"))
    if rehearsal:
        told.append(say("reveal.rehearsal"))
    elif not kept:
        told.append(say("consent.uncounted"))
    elif helped is not None:
        told.append(say.count("reveal.helped", helped) if helped else say("reveal.counts"))
    if others is not None:
        told.append(_others(others, receipt, say))
    extra = "".join(f"<p>{escape(sentence)}</p>" for sentence in told)
    folded = "" if rehearsal else _details(receipt, say)
    return (
        '<section class="card reveal" tabindex="-1" aria-labelledby="revealed">'
        f'<h3 id="revealed" data-say>{head}</h3>{extra}{folded}</section>'
    )


def _details(receipt: Receipt, say: Texts) -> str:
    """The models' full names and guidance, and the receipt."""
    rows = "".join(
        f'<li class="side-{name}"><span class="letter">{name.upper()}</span> '
        f"<span>{_who(side, say)}{_figures(side, say)}{_guidance(side, say)}</span></li>"
        for name, side in (("a", receipt.reveal.a), ("b", receipt.reveal.b))
    )
    number = say("reveal.receipt", receipt=f"<code>{escape(receipt.receipt)}</code>")
    return (
        f"<details><summary>{escape(say('reveal.details'))}</summary><ul>{rows}</ul>"
        f'<p class="quiet">{number}</p></details>'
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
