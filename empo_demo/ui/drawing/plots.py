"""Valence and new words of a round, each as a sentence and an inline SVG.

Valence: one line of the person over all turns, and a short one from each turn to what answered it;
people's replies as a pale band. Two models are drawn anew each turn, so no line joins the replies
of different turns. New words: the share of a reply's words that nobody has said in the dialogue so
far, beside people's; from the second reply on, because the dialogue before the first one is short.

The bands come from `assets/people.json`, which holds quartiles, measured by `page people` on
EmpatheticDialogues, and none of its texts: the valence of listeners' replies by the valence of the
turn that they answer, and the share of new words of a reply by the words said before it.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.feeling import Feeling, told
from empo_demo.metrics.lexical import count_words, share_new
from empo_demo.settings import ASSETS
from empo_demo.ui.texts import Texts
from empo_demo.votes.models import SIDES, Side

REACH = {"vader": 1.0, "sem": 0.6}
"""The valence at the ends of the axis. The SEM predicts mean ratings, which are less extreme."""
NEUTRAL = 0.15
"""A share of `REACH`: valences below it are called neutral, as are those within their spread."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 300, 150, 62, 268, 12, 126


@dataclass(frozen=True, slots=True)
class Series:
    """`turns` are (role, feeling) in order; `sides` the feelings of the round's two replies.

    A feeling is None where the SEM abstains: it has no point, and nothing is compared with it. Only
    replies that are `finished` are compared. `shares` are the replies' shares of new words in
    [0, 1], empty before the second reply; `words` is how many the dialogue before them has.
    """

    turns: tuple[tuple[str, Feeling | None], ...]
    sides: Mapping[Side, Feeling] = field(default_factory=dict)
    shares: Mapping[Side, float] = field(default_factory=dict)
    words: int = 0
    finished: bool = False


def series(
    dialogue: Dialogue,
    feelings: Sequence[Feeling | None],
    replies: Mapping[Side, str],
    reply_feelings: Mapping[Side, Feeling],
    *,
    finished: bool = False,
) -> Series:
    """The figures of a dialogue, one feeling per turn, and of the replies of its open round."""
    said = [turn.content for turn in dialogue.turns]
    shares: dict[Side, float] = {}
    if len(said) > 1:
        found = {side: share_new(text, said) for side, text in replies.items()}
        shares = {side: share for side, share in found.items() if share is not None}
    roles = (turn.role for turn in dialogue.turns)
    turns = tuple(zip(roles, feelings, strict=True))
    return Series(turns, dict(reply_feelings), shares, count_words(said), finished)


def plots(data: Series, say: Texts) -> str:
    """Both plots; nothing where there is nothing to tell."""
    parts = [_valence(data, say), _new_words(data, say)]
    return "".join(parts)


def _valence(data: Series, say: Texts) -> str:
    if not data.turns:
        return ""
    felt = [*(feeling for _, feeling in data.turns), *data.sides.values()]
    head = (
        f'<section class="card plot"><h3>{escape(say("valence.title"))}</h3>'
        f'<p class="told">{escape(valence_sentence(data, say))}</p>'
    )
    if not any(felt):
        return f"{head}</section>"
    counted = any(feeling.source == "vader" for feeling in felt if feeling)
    source = escape(say("valence.vader" if counted else "valence.sem"))
    return (
        f"{head}{_fold(say, 'valence')}"
        f'<div class="chart">{_valence_svg(data, say)}{_legend(data, say)}'
        f'<p class="quiet">{escape(say("valence.touch"))}</p><details>'
        f'<summary>{escape(say("valence.how"))}</summary><p class="quiet">{source}</p>'
        "</details></div></section>"
    )


def valence_sentence(data: Series, say: Texts) -> str:
    """What the picture says of the words: how the person's sound, or which reply's are brighter.

    Two replies are compared only when both are finished, and only where their intervals part.
    """
    person = next(feeling for role, feeling in reversed(data.turns) if role == "user")
    if person is None:
        return say("valence.unread") + "."
    if not data.finished or len(data.sides) < 2:
        return say(f"valence.person.{_kind(person)}") + "."
    darker, brighter = sorted(data.sides, key=lambda side: data.sides[side].valence)
    low, high = data.sides[darker], data.sides[brighter]
    if low.source != high.source or _end(low, 1) >= _end(high, -1):
        return say("valence.close") + "."
    return say("valence.apart", one=brighter.upper(), other=darker.upper()) + "."


def _kind(feeling: Feeling) -> str:
    least = NEUTRAL * REACH.get(feeling.source, 1.0)
    if abs(feeling.valence) < max(least, feeling.spread or 0.0):
        return "neutral"
    return "good" if feeling.valence > 0 else "bad"


def _end(feeling: Feeling, sign: int) -> float:
    """The upper (`sign` 1) or lower (-1) end of the interval; a word list has a tenth each way."""
    spread = 0.1 if feeling.spread is None else feeling.spread
    return feeling.valence + sign * spread


def _share_of(feeling: Feeling) -> float:
    """The valence as a share of the axis, in [-1, 1]."""
    return max(-1.0, min(1.0, feeling.valence / REACH.get(feeling.source, 1.0)))


def _fold(say: Texts, name: str) -> str:
    """On a phone the picture is behind a switch, and the sentence stays."""
    return (
        f'<label class="fold"><input type="checkbox" name="{name}"> '
        f"{escape(say('plots.show'))}</label>"
    )


def _valence_svg(data: Series, say: Texts) -> str:
    count = len(data.turns) + 1
    places = [_LEFT + 22 + (_RIGHT - _LEFT - 40) * i / max(1, count - 1) for i in range(count)]
    shapes = [_axis(say)]
    for i in [*range(1, len(data.turns), 2), *([len(data.turns)] if data.sides else [])]:
        before = data.turns[i - 1][1]
        if before:
            band = reply_band(before.valence, before.source)
            shapes.append(_band(places[i], band, before.source))
    points: list[tuple[float, float] | None] = []
    figures: list[str] = []
    for place, (role, feeling) in zip(places, data.turns, strict=False):
        points.append(None if feeling is None else (place, _y(_share_of(feeling))))
        if feeling is not None:
            shapes.append(_spread(place, feeling, "you" if role == "user" else "reply"))
            figures.append(
                _figure(say("valence.you" if role == "user" else "who.reply"), feeling, say)
            )
    # Each reply is joined to the turn that it answers, and to no reply of another model.
    answered = zip(points[::2], points[1::2], strict=False)
    shapes += [_line([turn, reply], "reply") for turn, reply in answered if turn and reply]
    for side, feeling in data.sides.items():
        end = (places[-1], _y(_share_of(feeling)))
        shapes.append(_spread(places[-1] + (4 if side == "b" else -4), feeling, f"side-{side}"))
        if (turn := points[-1]) is not None:
            shapes.append(_line([turn, end], f"side-{side}"))
        shapes.append(_mark(side, *end))
        figures.append(_figure(say("side", side=side.upper()), feeling, say))
    person, replies = ([point for point in points[start::2] if point] for start in (0, 1))
    shapes.append(_line(person, "you"))
    shapes += [f'<circle class="you" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>' for x, y in person]
    shapes += [f'<circle class="reply" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in replies]
    label = escape(say("valence.alt", figures=", ".join(figures)))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" tabindex="0" '
        f'class="spark vplot">{"".join(shapes)}</svg>'
    )


def _figure(name: str, feeling: Feeling, say: Texts) -> str:
    return say("valence.figure", name=name, value=say.number(f"{feeling.valence:+.1f}"))


def _axis(say: Texts) -> str:
    rows = (("valence.high", _TOP), ("valence.mid", _y(0)), ("valence.low", _BOTTOM))
    words = "".join(
        f'<text x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{escape(say(key))}</text>'
        for key, y in rows
    )
    return (
        f'{words}<line class="zero" x1="{_LEFT}" x2="{_WIDTH}" y1="{_y(0):.0f}" y2="{_y(0):.0f}"/>'
    )


def _band(x: float, band: Band | None, source: str) -> str:
    if band is None:
        return ""
    low, high = (_share_of(Feeling(end, None, None, source)) for end in band)
    top, bottom = _y(high), _y(low)
    return (
        f'<rect class="people" x="{x - 20:.1f}" y="{top:.1f}" width="40" '
        f'height="{max(3.0, bottom - top):.1f}" rx="6"/>'
    )


def _line(points: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _spread(x: float, feeling: Feeling, kind: str) -> str:
    """The interval of a valence, in which people's rating lies in two of three texts."""
    if feeling.spread is None:
        return ""
    ends = (Feeling(_end(feeling, sign), None, None, feeling.source) for sign in (1, -1))
    top, bottom = (_y(_share_of(end)) for end in ends)
    return (
        f'<line class="spread {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
    )


def _mark(side: str, x: float, y: float) -> str:
    if side == "a":
        return f'<rect class="side-a" x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12"/>'
    return f'<path class="side-b" d="M{x:.1f} {y - 7:.1f} l8 13 h-16 z"/>'


def _legend(data: Series, say: Texts) -> str:
    entries = [("●", "you", say("valence.you"))]
    if len(data.turns) > 1:
        entries.append(("●", "earlier", say("valence.earlier")))
    entries += [(m, f"side-{s}", s.upper()) for m, s in (("■", "a"), ("▲", "b")) if s in data.sides]
    if data.sides:
        entries.append(("▬", "people", say("valence.people")))
    return (
        '<p class="legend" aria-hidden="true">'
        + "".join(
            f'<span class="{kind}"><i>{mark}</i> {escape(name)}</span>'
            for mark, kind, name in entries
        )
        + "</p>"
    )


def _new_words(data: Series, say: Texts) -> str:
    if not data.shares:
        return ""
    band = new_words_band(data.words)
    rows = "".join(
        _share(side, data.shares[side], band, say) for side in SIDES if side in data.shares
    )
    return (
        f'<section class="card plot"><h3>{escape(say("new_words.title"))}</h3>'
        f'<p class="told">{escape(new_words_sentence(data, say))}</p>{_fold(say, "new_words")}'
        f'<div class="chart"><ul class="shares">{rows}</ul>'
        f'<p class="quiet">{escape(say("new_words.note"))}</p></div></section>'
    )


def new_words_sentence(data: Series, say: Texts) -> str:
    """Whether the replies bring fewer new words than people's do after as many words."""
    band = new_words_band(data.words) or (0.0, 1.0)
    kinds = {
        side: "less" if share < band[0] else "more" if share > band[1] else "same"
        for side, share in data.shares.items()
    }
    if len(kinds) == 2 and len(set(kinds.values())) == 1:
        return say(f"new_words.both.{kinds['a']}") + "."
    return "; ".join(say(f"new_words.{kind}", side=s.upper()) for s, kind in kinds.items()) + "."


def _share(side: str, share: float, band: Band | None, say: Texts) -> str:
    label = escape(say("new_words.row", side=side.upper(), share=say.number(f"{share:.0%}")))
    range_ = ""
    if band:
        low, high = (100 * end for end in band)
        range_ = f'<span class="people" style="left:{low:.0f}%;width:{high - low:.0f}%"></span>'
    dot = f'<span class="dot" style="left:{100 * share:.0f}%"></span>'
    return f'<li class="side-{side}"><span class="bar">{range_}{dot}</span>{label}</li>'


def _y(value: float) -> float:
    return _TOP + (_BOTTOM - _TOP) * (1 - value) / 2


PEOPLE = ASSETS / "people.json"
VALENCE_EDGES = {"vader": (-0.6, -0.2, 0.2, 0.6), "sem": (-0.3, -0.1, 0.1, 0.3)}
"""The classes of valence: the SEM's values lie closer together than the word list's."""
WORD_EDGES = (20, 30, 40, 60, 80)
LEAST = 20
"""A class with fewer replies gives no band."""

Band = tuple[float, float]


def reply_band(valence: float, source: str) -> Band | None:
    """The quartiles of the valence of people's replies to a turn of this valence, in [-1, 1]."""
    return _at(_figures()["valence"].get(source), VALENCE_EDGES.get(source, ()), valence)


def new_words_band(words: int) -> Band | None:
    """The quartiles of the share of new words in people's replies after `words` words."""
    return _at(_figures()["new_words"], WORD_EDGES, words)


def measure(
    dialogues: Iterable[Dialogue], valences: dict[str, Callable[[Sequence[str]], list[float]]]
) -> dict[str, Any]:
    """All figures of the file. `valences` gives a valence per text, by the name of its source."""
    whole = list(dialogues)
    pairs = [
        (dialogue.turns[i - 1].content, dialogue.turns[i].content)
        for dialogue in whole
        for i in range(1, len(dialogue.turns), 2)
    ]
    by_source = {}
    for source, judge in valences.items():
        felt = [Feeling(v, None, None, source) for v in judge([t for pair in pairs for t in pair])]
        answers = zip(felt[::2], felt[1::2], strict=True)
        by_source[source] = _quartiles(
            [(person.valence, told(reply, person).valence) for person, reply in answers],
            VALENCE_EDGES[source],
        )
    replies = [
        ([turn.content for turn in dialogue.turns[:i]], dialogue.turns[i].content)
        for dialogue in whole
        for i in range(3, len(dialogue.turns), 2)
    ]
    shares = ((count_words(said), share_new(reply, said) or 0.0) for said, reply in replies)
    return {
        "dialogues": len(whole),
        "replies": len(pairs),
        "valence": by_source,
        "new_words": _quartiles(shares, WORD_EDGES),
    }


def _quartiles(
    points: Iterable[tuple[float, float]], edges: Sequence[float]
) -> list[list[float] | None]:
    import numpy as np

    classes: list[list[float]] = [[] for _ in range(len(edges) + 1)]
    for at, value in points:
        classes[bisect(edges, at)].append(value)
    return [
        [round(float(q), 3) for q in np.quantile(values, (0.25, 0.75))]
        if len(values) >= LEAST
        else None
        for values in classes
    ]


def _at(rows: Any, edges: Sequence[float], value: float) -> Band | None:
    band = rows[bisect(edges, value)] if rows else None
    return (band[0], band[1]) if band else None


@cache
def _figures() -> dict[str, Any]:
    return read(PEOPLE)


def read(path: Path) -> dict[str, Any]:
    """The file's figures."""
    return dict(json.loads(path.read_text(encoding="utf8")))
