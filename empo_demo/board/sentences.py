"""The Board in sentences, for visitors who do not know log odds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from empo_demo.board import agreement, standing
from empo_demo.board.power import Needed
from empo_demo.contenders.roster import label_of
from empo_demo.errors import Sentence

TELLING = 0.15
"""An effect is told once its interval, as a share of rounds won, is narrower than ± this."""


def sentences(
    ranking: standing.Ranking,
    agreed: agreement.Agreement,
    needed: Needed,
    labels: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """All sentences of the Board. `labels` are the contenders' names for people.

    With fewer than `HIDDEN_BELOW` decided votes there are counts only.
    """
    counts = Sentence(
        "{votes} by {people}; every interval counts a person as one, however often they voted.",
        votes=_counted(ranking.votes, "1 vote", "{n} votes"),
        people=_counted(ranking.voters, "1 person", "{n} people"),
    )
    wanted = needed.sentence(ranking.decided, ranking.voters)
    if ranking.decided < standing.HIDDEN_BELOW:
        return (
            _count_sentence("ended in a tie", ranking.ties),
            _count_sentence("found both replies bad", ranking.both_bad),
            Sentence(
                "Shares and order come with {n} decided votes; until then there are counts only.",
                n=standing.HIDDEN_BELOW,
            ),
            wanted,
            counts,
        )
    return (
        *limits(ranking, labels or {}),
        side_sentence(ranking.position),
        length_sentence(ranking.length),
        _rate_sentence("ended in a tie", ranking.ties),
        _rate_sentence("found both replies bad", ranking.both_bad),
        agreed.sentence(),
        wanted,
        counts,
    )


def limits(ranking: standing.Ranking, labels: Mapping[str, str]) -> tuple[str, ...]:
    """What the strengths cannot say: across groups, and of those that won or lost everything."""
    said = []
    if len(ranking.groups) > 1:
        groups = "; ".join(
            _names((member.id for member in group), labels) for group in ranking.groups
        )
        said.append(
            Sentence(
                "These groups never met: {groups}. Strengths and win rates compare within a group "
                "only.",
                groups=groups,
            )
        )
    sets: dict[tuple[str, ...], standing.Standing] = {}
    for place in ranking.contenders:
        if place.separation is not None and place.status != "hidden":
            sets.setdefault(tuple(sorted((place.id, *place.separation.others))), place)
    return (*said, *(_separated(place, members, labels) for members, place in sets.items()))


def _separated(
    contender: standing.Standing, members: Sequence[str], labels: Mapping[str, str]
) -> str:
    """Why the strengths of the set `members`, to which `contender` belongs, have open ends."""
    assert contender.separation is not None
    kind, names = contender.separation.kind, _names(members, labels)
    if kind == "tied":
        return Sentence("{names} only tied: how strong it is cannot be said.", names=names)
    if kind == "between":
        return Sentence(
            "{names} won every vote against some and lost every one against others: the strength "
            "has no limit.",
            names=names,
        )
    end = "upper" if kind == "won" else "lower"
    if len(members) > 1:
        return Sentence(
            f"{{names}} {kind} every vote against the others: the strengths have no {end} end.",
            names=names,
        )
    return Sentence(
        f"{{name}} {kind} every vote: its strength is {{limit}} log odds, and has no {end} end.",
        name=names,
        limit=span(
            contender.strength_interval_bootstrap or contender.strength_interval_sandwich, "{:+.2f}"
        ),
    )


def separation_note(contender: standing.Standing) -> str:
    """Why the strength has an open end, in the fewest words; empty if it has none."""
    if contender.separation is None:
        return ""
    if contender.separation.kind in ("won", "lost"):
        against = " against the others" if contender.separation.others else ""
        return f"{contender.separation.kind} every vote{against}"
    return {"tied": "only ties", "between": "won or lost every vote"}[contender.separation.kind]


def _names(ids: Iterable[str], labels: Mapping[str, str]) -> str:
    return ", ".join(label_of(name, dict(labels)) for name in ids)


def side_sentence(effect: standing.Effect | None) -> str:
    """The effect of being side A, in words."""
    if effect is None:
        return "Whether the side matters cannot be said from these votes."
    if _is_wide(effect):
        return "Too few votes to tell whether the side matters."
    return _effect_sentence(
        effect,
        "People lean to the {side}",
        "No sign that the side matters",
        "side A",
        side="left (A)" if effect.estimate > 0 else "right (B)",
    )


def length_sentence(effect: standing.Effect | None) -> str:
    """The effect of a longer reply, in words."""
    if effect is None:
        return "Whether longer replies win cannot be said from these votes."
    if _is_wide(effect):
        return "Too few votes to tell whether longer replies win."
    return _effect_sentence(
        effect,
        "{taste} replies win more",
        "No sign that length matters",
        "a reply twice as long",
        taste="Longer" if effect.estimate > 0 else "Shorter",
    )


def _is_wide(effect: standing.Effect) -> bool:
    low, high = (1 / (1 + math.exp(-end)) for end in effect.interval)
    return high - low > 2 * TELLING


def _effect_sentence(
    effect: standing.Effect, shown: str, not_shown: str, winner: str, **direction: str
) -> Sentence:
    """`shown` where the interval leaves out 0, else `not_shown`; then how often `winner` wins."""
    certain = not effect.interval[0] <= 0 <= effect.interval[1]
    chance = f"between equals, {winner} would win about {{share}} (95 %: {{span}})."
    free = " The strengths are free of this." if certain else ""
    return Sentence(
        f"{shown if certain else not_shown}: {chance}{free}",
        share=_percent(effect.estimate),
        span=_percents(effect.interval),
        **(direction if certain else {}),
    )


def _counted(number: int, one: str, many: str) -> Sentence:
    return Sentence(one) if number == 1 else Sentence(many, n=f"{number:,}")


def _count_sentence(what: str, rate: standing.Rate) -> Sentence:
    if not rate.total:
        return Sentence(f"No vote yet {what}.")
    return Sentence(f"{{n}} of {{all}} votes {what}.", n=rate.count, all=rate.total)


def _rate_sentence(what: str, rate: standing.Rate) -> Sentence:
    if rate.rate is None or rate.interval is None:
        return Sentence(f"No vote yet {what}.")
    return Sentence(
        f"{{share}} of the votes {what} (95 %: {{span}}).",
        share=f"{rate.rate:.0%}",
        span=span(rate.interval, "{:.0%}"),
    )


def span(interval: Sequence[float] | None, form: str, between: str = "{low} to {high}") -> str:
    """An interval in words: `at least` or `at most` where one end is infinite."""
    if interval is None:
        return "–"
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return "no limit"
    if math.isinf(high):
        return Sentence("at least {low}", low=form.format(low))
    if math.isinf(low):
        return Sentence("at most {high}", high=form.format(high))
    return Sentence(between, low=form.format(low), high=form.format(high))


def _percent(log_odds: float) -> str:
    return f"{1 / (1 + math.exp(-log_odds)):.0%}"


def _percents(interval: tuple[float, float]) -> str:
    low, high = map(_percent, interval)
    return Sentence("{low} to {high}", low=low, high=high)
