"""What a visitor preferred in ten situations, beside everybody: a table, and a picture to share.

One's own figures are counts. Everybody's have intervals, and are told only by enough votes that
are old enough. The picture holds counts and nothing that anybody wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from empo_demo.board.habits import HABITS, Counts, Share, count
from empo_demo.ui.arena_tab import share_card
from empo_demo.ui.texts import Texts
from empo_demo.ui.visitors import votes_of
from empo_demo.votes.models import VERDICTS

if TYPE_CHECKING:
    from empo_demo.arena.rounds import RoundView


def results(
    views: Sequence[RoundView], everybody: Mapping[str, Share | None], say: Texts, *, kept: bool
) -> str:
    """The table and the picture. `views` are the ten rounds; those without a vote do not count."""
    own = count(votes_of(views))
    if not any(view.receipt for view in views):
        return ""
    sentences = [_attention(views, say)] if any(map(_is_check, views)) else []
    if not kept:
        sentences.append(say("ten.unkept"))
    rows = "".join(
        f'<tr><th scope="row">{escape(say(f"ten.{name}"))}</th>'
        f"<td>{escape(_counts(name, counts, say))}</td>"
        f"<td>{escape(_share(name, everybody.get(name), say))}</td></tr>"
        for name, counts in own.items()
    )
    head = "".join(
        f'<th scope="col">{escape(text)}</th>' for text in ("", say("ten.you"), say("ten.all"))
    ).replace('<th scope="col"></th>', "<td></td>")
    notes = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    picture = share_card.figure(_card(own, say), say("ten.alt"), say)
    return (
        f'<section class="card ten-results"><h3>{escape(say("ten.title"))}</h3>{notes}'
        f'<div class="frame"><table class="tally"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="quiet">{escape(say("ten.note"))}</p></section>{picture}'
    )


def _is_check(view: RoundView) -> bool:
    return view.receipt is not None and view.receipt.reveal.attention_check


def _attention(views: Sequence[RoundView], say: Texts) -> str:
    """Whether the visitor saw that a reply was plainly wrong."""
    receipts = [view.receipt for view in views if view.receipt and _is_check(view)]
    rejected = [
        receipt
        for receipt in receipts
        if VERDICTS[receipt.verdict].outcome != 0
        and VERDICTS[receipt.verdict].preferred != _bad_side(receipt.reveal.chosen)
    ]
    return say("ten.passed" if len(rejected) == len(receipts) else "ten.missed")


def _bad_side(goes_on_with: str) -> str:
    """The side that is known to be bad: the dialogue never goes on with it."""
    return "b" if goes_on_with == "a" else "a"


def _counts(name: str, counts: Counts, say: Texts) -> str:
    return say(f"ten.{name}.counts", one=counts.one, other=counts.other, neither=counts.neither)


def _share(name: str, share: Share | None, say: Texts) -> str:
    if share is None:
        return say("ten.few")
    low, high = share.interval
    return say(
        f"ten.{name}.share",
        share=say.number(f"{share.one:.0%}"),
        low=say.number(f"{low:.0%}"),
        high=say.number(f"{high:.0%}"),
        n=say.number(f"{share.votes:,}"),
    )


def _card(own: Mapping[str, Counts], say: Texts) -> str:
    """The counts as SVG: one bar for each habit."""
    rows = []
    for place, habit in enumerate(HABITS):
        counts = own[habit.name]
        rows.append(_bar(counts, _counts(habit.name, counts, say), 190 + 110 * place))
    title = share_card.text(
        share_card.PAD, 128, [say("ten.card")], "#2a1f2b", 'font-family="Georgia, serif"'
    )
    return share_card.framed([title, *rows], 200 + 110 * len(HABITS))


def _bar(counts: Counts, told: str, top: float) -> str:
    """A bar of the votes for the one, the other and neither, under its words."""
    wide, votes = share_card.WIDTH - 2 * share_card.PAD, counts.one + counts.other + counts.neither
    parts, left = [], float(share_card.PAD)
    for number, colour in (
        (counts.one, "#0f6973"),
        (counts.other, "#9c4a12"),
        (counts.neither, "#b9a7b1"),
    ):
        part = wide * number / votes if votes else 0.0
        parts.append(
            f'<rect x="{left:.0f}" y="{top + 14}" width="{part:.0f}" height="26" fill="{colour}"/>'
        )
        left += part
    words = share_card.text(share_card.PAD, top, [told], "#2a1f2b")
    return words + "".join(parts)
