"""The Board in sentences, for visitors who do not know log odds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from empo_demo.board import agreement, standing
from empo_demo.contenders.roster import label_of


def sentences(
    ranking: standing.Ranking,
    agreed: agreement.Agreement,
    labels: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """All sentences of the Board. `labels` are the contenders' names for people."""
    return (
        *limits(ranking, labels or {}),
        side_sentence(ranking.position),
        length_sentence(ranking.length),
        _rate_sentence("ended in a tie", ranking.ties),
        _rate_sentence("found both replies bad", ranking.both_bad),
        agreed.sentence(),
        f"{_counted(ranking.votes, 'vote', 'votes')} by "
        f"{_counted(ranking.voters, 'person', 'people')}; every interval counts a person as one, "
        "however often they voted.",
    )


def limits(ranking: standing.Ranking, labels: Mapping[str, str]) -> tuple[str, ...]:
    """What the strengths cannot say: across groups, and of those that won or lost everything."""
    said = []
    if len(ranking.groups) > 1:
        groups = "; ".join(_names((one.id for one in group), labels) for group in ranking.groups)
        said.append(
            f"These groups never met: {groups}. Strengths and win rates compare within a group "
            "only."
        )
    sets: dict[tuple[str, ...], standing.Standing] = {}
    for one in ranking.contenders:
        if one.separation is not None and one.status != "hidden":
            sets.setdefault(tuple(sorted((one.id, *one.separation.others))), one)
    return (*said, *(_separated(one, members, labels) for members, one in sets.items()))


def _separated(one: standing.Standing, members: Sequence[str], labels: Mapping[str, str]) -> str:
    """Why the strengths of the set `members`, to which `one` belongs, have open ends."""
    assert one.separation is not None
    kind, names = one.separation.kind, _names(members, labels)
    if kind == "tied":
        return f"{names} only tied: how strong it is cannot be said."
    if kind == "between":
        return (
            f"{names} won every vote against some and lost every one against others: the strength "
            "has no limit."
        )
    end = "upper" if kind == "won" else "lower"
    if len(members) > 1:
        return f"{names} {kind} every vote against the others: the strengths have no {end} end."
    limit = span(one.strength_interval_bootstrap or one.strength_interval_sandwich, "{:+.2f}")
    return f"{names} {kind} every vote: its strength is {limit} log odds, and has no {end} end."


def separation_note(one: standing.Standing) -> str:
    """Why the strength has an open end, in the fewest words; empty if it has none."""
    if one.separation is None:
        return ""
    if one.separation.kind in ("won", "lost"):
        against = " against the others" if one.separation.others else ""
        return f"{one.separation.kind} every vote{against}"
    return {"tied": "only ties", "between": "won or lost every vote"}[one.separation.kind]


def _names(ids: Iterable[str], labels: Mapping[str, str]) -> str:
    return ", ".join(label_of(name, dict(labels)) for name in ids)


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


def span(interval: Sequence[float] | None, form: str, between: str = " to ") -> str:
    """An interval in words: `at least` or `at most` where one end is infinite."""
    if interval is None:
        return "–"
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return "no limit"
    if math.isinf(high):
        return f"at least {form.format(low)}"
    if math.isinf(low):
        return f"at most {form.format(high)}"
    return between.join(form.format(end) for end in interval)


def _percent(log_odds: float) -> str:
    return f"{1 / (1 + math.exp(-log_odds)):.0%}"


def _percents(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"
