"""The Board as data: everything that the tab shows, computed from ballots, without plots.

Contenders with fewer than 30 decided votes stay in the table, without figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from empo_demo.board import agreement, power, ratings, standing
from empo_demo.board.ballots import Ballot, told_apart
from empo_demo.board.sentences import sentences, separation_note, span
from empo_demo.contenders.roster import label_of
from empo_demo.errors import Sentence
from empo_demo.votes.models import VERDICTS

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Meeting:
    """The votes between two contenders, as seen from `one`. Ties count half."""

    one: str
    other: str
    wins: int
    losses: int
    ties: int
    both_bad: int

    @property
    def games(self) -> int:
        """The rounds that compare the two: both bad does not."""
        return self.wins + self.losses + self.ties

    @property
    def few(self) -> bool:
        """Whether the decided rounds are too few for a share."""
        return self.wins + self.losses < standing.HIDDEN_BELOW

    @property
    def share(self) -> float | None:
        return (self.wins + self.ties / 2) / self.games if self.games else None


@dataclass(frozen=True, slots=True)
class Board:
    """`sliders` maps contender and dimension to mean, interval, n. `lineage` has a row for each.

    `needed` says how many votes tell 55 % from 50 %, as people vote here.
    """

    ranking: standing.Ranking
    labels: dict[str, str]
    matrix: tuple[Meeting, ...]
    days: tuple[tuple[str, int], ...]
    sliders: dict[str, dict[str, dict[str, Any]]]
    arms: tuple[Row, ...]
    lineage: tuple[Row, ...]
    agreement: agreement.Agreement
    needed: power.Needed
    sentences: tuple[str, ...]

    def groups(self) -> list[tuple[standing.Standing, ...]]:
        """The contenders as they are shown: those that met together, the highest win rate first.

        Those with too few votes for a rate follow by name, and last those without a vote.
        """
        unmet = tuple(place for place in self.ranking.contenders if place.group is None)
        found = [tuple(sorted(group, key=self._place)) for group in self.ranking.groups]
        return [*found, tuple(sorted(unmet, key=self._place))]

    def _place(self, place: standing.Standing) -> tuple[float, str]:
        shown = place.status != "hidden" and place.win_rate is not None
        return (-(place.win_rate or 0.0) if shown else 1.0, label_of(place.id, self.labels))

    def tally(self, name: str) -> tuple[int, int, int]:
        """The rounds that a contender won, lost and tied."""
        own = [meeting for meeting in self.matrix if meeting.one == name]
        return sum(m.wins for m in own), sum(m.losses for m in own), sum(m.ties for m in own)

    def table(self) -> list[Row]:
        """The rows under the win-rate plot, for every contender."""
        return [_table_row(member, self.labels) for group in self.groups() for member in group]

    def matrix_table(self) -> list[Row]:
        return [
            {
                "contender": label_of(cell.one, self.labels),
                "against": label_of(cell.other, self.labels),
                "won": str(cell.wins),
                "lost": str(cell.losses),
                "ties": str(cell.ties),
                "both bad": str(cell.both_bad),
            }
            for cell in self.matrix
            if cell.one < cell.other
        ]

    def sliders_table(self) -> list[Row]:
        return [
            {
                "contender": label_of(name, self.labels),
                "slider": dimension,
                "mean": f"{cell['mean']:.1f}",
                "95 %": span(cell["interval"], "{:.1f}"),
                "ratings": str(cell["n"]),
            }
            for name, cells in self.sliders.items()
            for dimension, cell in cells.items()
        ]


def board(
    ballots: Sequence[Ballot],
    roster: Roster | None = None,
    *,
    samples: int = 1000,
) -> Board:
    """Compute the whole Board. `roster` gives labels and lineage, and says whose votes are those
    of its own contenders: a vote on another model with the same name is listed by its revision."""
    if roster is not None:
        current = {contender.id: contender.revision for contender in roster.contenders}
        ballots = told_apart(ballots, current)
    ranking = standing.rank(ballots, samples=samples)
    contenders = roster.contenders if roster is not None else ()
    labels = {contender.id: contender.label or contender.id for contender in contenders}
    agreed = agreement.of_ballots(ballots)
    needed = power.needed(power.setting_of(ballots, power.Setting()))
    return Board(
        ranking=ranking,
        labels=labels,
        matrix=_matrix(ballots, [place.id for place in ranking.contenders]),
        days=_days(ballots),
        sliders=ratings.summarise(ratings.of_ballots(ballots)).contenders,
        arms=_arms(ballots, labels),
        lineage=_lineage(roster, ranking),
        agreement=agreed,
        needed=needed,
        sentences=sentences(ranking, agreed, needed, labels),
    )


def _matrix(ballots: Sequence[Ballot], ids: list[str]) -> tuple[Meeting, ...]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for ballot in ballots:
        kind = VERDICTS[ballot.verdict]
        if kind.preferred:
            won, lost = (ballot.a, ballot.b) if kind.preferred == "a" else (ballot.b, ballot.a)
            counts[won, lost, "won"] += 1
        else:
            how = "tie" if kind.outcome == 0 else ballot.verdict
            counts[ballot.a, ballot.b, how] += 1
            counts[ballot.b, ballot.a, how] += 1
    return tuple(
        Meeting(
            contender,
            other,
            counts[contender, other, "won"],
            counts[other, contender, "won"],
            counts[contender, other, "tie"],
            counts[contender, other, "both_bad"],
        )
        for contender in ids
        for other in ids
        if contender != other
    )


def _days(ballots: Sequence[Ballot]) -> tuple[tuple[str, int], ...]:
    """The votes of each day from the first to the last, with the days that had none."""
    counts = Counter(ballot.time.date() for ballot in ballots if ballot.time)
    if not counts:
        return ()
    first, last = min(counts), max(counts)
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return tuple((day.isoformat(), counts[day]) for day in days)


def _arms(ballots: Sequence[Ballot], labels: dict[str, str]) -> tuple[Row, ...]:
    """Win rates by what the page showed before the vote, if this varied."""
    arms: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        if ballot.exposure is not None:
            arms.setdefault(ballot.exposure, []).append(ballot)
    if len(arms) < 2:
        return ()
    rows = []
    for arm, own in sorted(arms.items()):
        for place in standing.rank(own, samples=0).contenders:
            row = _table_row(place, labels)
            rows.append({"shown before the vote": arm, **row})
    return tuple(rows)


def _lineage(roster: Roster | None, ranking: standing.Ranking) -> tuple[Row, ...]:
    """For each contender: its parent, and the votes and the data that it was trained on."""
    votes = {place.id: place.votes for place in ranking.contenders}
    return tuple(
        {
            "contender": contender.label or contender.id,
            "parent": contender.parent or "–",
            "trained on votes": _known(getattr(contender, "votes", None)),
            "data": _known(getattr(contender, "data_hash", None))[:12],
            "revision": contender.revision,
            "votes since": str(votes.get(contender.id, 0)),
        }
        for contender in (roster.contenders if roster is not None else ())
    )


def _table_row(contender: standing.Standing, labels: dict[str, str]) -> Row:
    hidden = contender.status == "hidden" or contender.win_rate is None
    note = {
        "hidden": Sentence(
            "too few votes yet: {n} of {all}", n=contender.decided, all=standing.HIDDEN_BELOW
        ),
        "preliminary": "preliminary",
        "settled": "",
    }[contender.status]
    if not hidden and contender.separation is not None:
        why = separation_note(contender)
        note = Sentence("{why}, preliminary", why=why) if note else why
    return {
        "contender": label_of(contender.id, labels),
        "win rate": "–" if hidden else f"{contender.win_rate:.1%}",
        "95 %": "–" if hidden else span(contender.win_rate_interval, "{:.1%}"),
        "strength": "–" if hidden or contender.separation else f"{contender.strength:+.2f}",
        "strength 95 %": "–" if hidden else span(contender.strength_interval_bootstrap, "{:+.2f}"),
        "votes": str(contender.votes),
        "note": note,
    }


def _known(value: object) -> str:
    return "–" if value in (None, "") else str(value)
