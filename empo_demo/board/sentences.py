"""The Board in sentences, for visitors who do not know log odds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from empo_demo.board import agreement, standing


def sentences(ranking: standing.Ranking, agreed: agreement.Agreement) -> tuple[str, ...]:
    return (
        side_sentence(ranking.position),
        length_sentence(ranking.length),
        _rate_sentence("ended in a tie", ranking.ties),
        _rate_sentence("found both replies bad", ranking.both_bad),
        agreed.sentence(),
        f"{_counted(ranking.votes, 'vote', 'votes')} by "
        f"{_counted(ranking.voters, 'person', 'people')}; every interval counts a person as one, "
        "however often they voted.",
    )


def side_sentence(effect: standing.Effect | None) -> str:
    """The effect of being side A, in words."""
    if effect is None:
        return "Whether the side matters cannot be said from these votes."
    side = "left (A)" if effect.estimate > 0 else "right (B)"
    return _effect_sentence(
        effect, f"People lean to the {side}", "No sign that the side matters", "side A"
    )


def length_sentence(effect: standing.Effect | None) -> str:
    """The effect of a longer reply, in words."""
    if effect is None:
        return "Whether longer replies win cannot be said from these votes."
    taste = "Longer" if effect.estimate > 0 else "Shorter"
    return _effect_sentence(
        effect, f"{taste} replies win more", "No sign that length matters",
        "a reply twice as long",
    )  # fmt: skip


def _effect_sentence(effect: standing.Effect, shown: str, not_shown: str, winner: str) -> str:
    """`shown` where the interval leaves out 0, else `not_shown`; then how often `winner` wins."""
    found = not effect.interval[0] <= 0 <= effect.interval[1]
    share, bounds = _percent(effect.estimate), _percents(effect.interval)
    chance = f"between equals, {winner} would win about {share} (95 %: {bounds})."
    free = " The strengths are free of this." if found else ""
    return f"{shown if found else not_shown}: {chance}{free}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _rate_sentence(what: str, rate: standing.Rate) -> str:
    if rate.rate is None or rate.interval is None:
        return f"No vote yet {what}."
    return f"{rate.rate:.0%} of the votes {what} (95 %: {span(rate.interval, '{:.0%}')})."


def span(interval: Sequence[float] | None, form: str) -> str:
    return "–" if interval is None else " to ".join(form.format(end) for end in interval)


def _percent(log_odds: float) -> str:
    return f"{1 / (1 + math.exp(-log_odds)):.0%}"


def _percents(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"
