"""Writes `docs/votes_needed.md` and its curve: how many votes tell a share from one half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from empo_demo.board.power import CORRELATION, Needed, Setting, needed, rounded

SHARES = (0.53, 0.54, 0.55, 0.56, 0.58, 0.60, 0.65, 0.70)
PER_PERSON = (1.0, 5.0, 20.0)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _LOW = 640, 340, 62, 150, 44
_COLOURS = ("#3b6ea5", "#b4532a", "#4f7f3c")


def write(folder: Path, *, seed: int = 0) -> None:
    """Simulate each share for each number of votes per person, and write both files."""
    curves = {
        votes: [needed(Setting(share=share, per_person=votes), seed=seed) for share in SHARES]
        for votes in PER_PERSON
    }
    (folder / "votes_needed.svg").write_text(curve(curves), encoding="utf8")
    (folder / "votes_needed.md").write_text(page(curves), encoding="utf8")


def page(curves: dict[float, list[Needed]]) -> str:
    """The figures as a table, with what they assume."""
    rows = "".join(
        f"| {share:.0%} | "
        + " | ".join(f"{rounded(o.votes):,} by {rounded(o.people):,}" for o in at)
        + " |\n"
        for share, *at in zip(SHARES, *curves.values(), strict=True)
    )
    alone = needed(replace(Setting(), correlation=0.0))
    usual = needed(Setting())
    return f"""# How many votes are needed

To tell a share of rounds won from one half: the votes, and the people who cast them, at which four
of five such boards have an interval above one half. A tie counts as no decided vote.

![The votes needed fall with the share that is to be told](votes_needed.svg)

| share | one vote each | five each | twenty each |
|---|---|---|---|
{rows}
To tell 55 % from 50 %, {rounded(usual.votes):,} votes of {rounded(usual.people):,} people are
needed if a person casts five on average; if votes were independent, it would be
{rounded(alone.votes):,}. Many people matter more than many votes: with twenty votes each, more
votes say less.

- Simulated as the Board counts (`empo_demo/board/power.py`): Wilson's interval for the effective
  number of votes, clustered by person.
- Each person has a win rate of their own: votes of a person are alike by an intraclass correlation
  of {CORRELATION:g}, as among the 303 judges of 15 pairs in CEMS (standard errors 30 to 53 % larger
  than those of independent votes). A person's number of votes is geometric.
- The Board says this for 55 %, and takes its own votes per person and correlation once it has 300
  decided votes of 30 people.

`python -m empo_demo votes needed --share 0.55` simulates it for your arena, and
`python -m recipes.studies votes-needed` made this page.
"""


def curve(curves: dict[float, list[Needed]]) -> str:
    """Votes (on a logarithmic scale) over the share, a line per number of votes per person."""
    high = max(point.votes for line in curves.values() for point in line)
    low = min(point.votes for line in curves.values() for point in line)
    lines = []
    for step in (30, 100, 300, 1_000, 3_000, 10_000, 30_000):
        if low / 2 < step < high * 1.5:
            y = _y(step, low, high)
            lines.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="#bbb"/><text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{step:,}</text>"
            )
    for share in (0.55, 0.6, 0.65, 0.7):
        lines.append(
            f'<text x="{_x(share):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{share:.0%}</text>'
        )
    for (votes, line), colour in zip(curves.items(), _COLOURS, strict=True):
        lines.append(_line(line, colour, f"{votes:g} a person", low, high))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    lines.append(
        f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">share of rounds won</text>'
        f'<text x="{_LEFT - 50}" y="14">decided votes</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="13" fill="#555"><rect width="{_WIDTH}" '
        f'height="{_HEIGHT}" fill="#fff"/>{"".join(lines)}</svg>\n'
    )


def _line(line: Sequence[Needed], colour: str, name: str, low: int, high: int) -> str:
    places = [(_x(point.setting.share), _y(point.votes, low, high)) for point in line]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>'
    )


def _x(share: float) -> float:
    span = _WIDTH - _LEFT - _RIGHT
    return _LEFT + span * (share - SHARES[0]) / (SHARES[-1] - SHARES[0])


def _y(votes: int, low: int, high: int) -> float:
    place = math.log(votes / low) / math.log(high / low)
    return _HEIGHT - _LOW - (_HEIGHT - _LOW - 26) * place
