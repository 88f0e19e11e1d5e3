"""The Board tab: how the contenders stand, from the first vote on.

It is never beside a running dialogue: how others voted would sway the next vote.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.board.ballots import ballots_of_store
from empo_demo.board.board import board
from empo_demo.board.standing import HIDDEN_BELOW
from empo_demo.contenders.roster import label_of
from empo_demo.errors import ArenaError
from empo_demo.ui.drawing import highlights
from empo_demo.ui.serving.lanes import UNLISTED
from empo_demo.ui.tabs.recent import Recent
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.visitors import Session

if TYPE_CHECKING:
    from empo_demo.board.board import Board, Meeting
    from empo_demo.board.standing import Standing

_DAYS = 60


def build(arena: Arena, session: gr.BrowserState, tab: gr.Tab) -> None:
    """Lay the tab out. It redraws when it opens and every 20 s while it is open."""
    words = gr.HTML(elem_id="board-words")
    latest = Recent(partial(board_of, arena))
    timer = gr.Timer(20, active=False)

    def draw(stored: Any) -> str:
        return drawn(latest, texts_of(Session.read(stored).language))

    def opened(stored: Any) -> dict[Any, Any]:
        return {words: draw(stored), timer: gr.update(active=True)}

    tab.select(opened, [session], [words, timer], **UNLISTED)
    timer.tick(draw, [session], [words], **UNLISTED)


def board_of(arena: Arena) -> Board:
    """The Board of all votes that count, as they stand now."""

    return board(ballots_of_store(arena.store), arena.roster)


def drawn(made: Callable[[], Board], say: Texts) -> str:
    """Return the whole tab as HTML, or a message that says why it cannot be drawn."""
    try:
        board = made()
    except ArenaError as error:
        return highlights.told(error, say)
    if not board.ranking.votes:
        return (
            f'<section class="card"><h2 class="sr">{escape(say("tab.board"))}</h2>'
            f"<h3>{escape(say('board.title'))}</h3><p>{escape(say('board.none'))}</p></section>"
        )
    detail = "".join(
        f"<h4>{escape(say(f'board.{name}'))}</h4>{highlights.table_of_rows(rows, say)}"
        for name, rows in (
            ("figures", board.table()),
            ("matrix", board.matrix_table()),
            ("ratings", board.sliders_table()),
            ("arms", board.arms),
            ("lineage", board.lineage),
        )
        if rows
    )
    said = "".join(f"<li>{escape(say.own(line))}</li>" for line in board.sentences)
    return (
        f'<h2 class="sr">{escape(say("tab.board"))}</h2>'
        f'<section class="card"><h3>{escape(say("board.title"))}</h3>{standings(board, say)}'
        f'<p class="quiet">{escape(say("board.note"))}</p></section>'
        f'<div class="board-pair"><section class="card"><h3>{escape(say("board.matrix"))}</h3>'
        f'{matrix(board, say)}</section><section class="card"><h3>{escape(say("board.days"))}</h3>'
        f'{days(board, say)}<ul class="plain">{said}</ul></section></div>'
        f'<section class="card"><details><summary>{escape(say("board.all"))}</summary>{detail}'
        "</details></section>"
    )


def standings(board: Board, say: Texts) -> str:
    """Return one row per contender: its win rate with its interval, or its counts while few.

    Groups that never met are lists of their own.
    """
    met = len(board.ranking.groups)
    lists = []
    for number, group in enumerate(board.groups(), start=1):
        rows = "".join(_standing(contender, board, say) for contender in group)
        title = say("board.group", n=number) if met > 1 and number <= met else ""
        head = f"<h4>{escape(title)}</h4>" if title else ""
        lists.append(f'{head}<ul class="standings">{rows}</ul>' if rows else "")
    return "".join(lists)


def _standing(contender: Standing, board: Board, say: Texts) -> str:
    name = escape(say.contender(contender.id, label_of(contender.id, board.labels)))
    missing = max(0, HIDDEN_BELOW - contender.decided)
    note = (
        say.count("board.missing", missing)
        if missing
        else say.count("board.votes", contender.votes)
    )
    if missing or contender.win_rate is None or contender.win_rate_interval is None:
        wins, losses, ties = board.tally(contender.id)
        counts = say("board.counts", won=wins, lost=losses, tied=ties)
        return (
            f'<li class="provisional"><b>{name}</b><span class="counts">{escape(counts)}</span>'
            f"<small>{escape(note)}</small></li>"
        )
    low, high = (100 * end for end in contender.win_rate_interval)
    middle = 100 * contender.win_rate
    span = say.number(f"{contender.win_rate:.0%} ({low:.0f}–{high:.0f}%)")
    return (
        f'<li><b>{name}</b><span class="track"><span class="span" style="left:{low:.1f}%;'
        f'width:{high - low:.1f}%"></span><span class="dot" style="left:{middle:.1f}%">'
        f"</span></span><span>{span}</span><small>{escape(note)}</small></li>"
    )


def matrix(board: Board, say: Texts) -> str:
    """Return the table of matchups: the row's share of the rounds, and the number of rounds.

    While there are few, the rounds that the row won and lost. On a narrow screen the columns have
    the numbers of the rows.
    """
    ids = [member.id for group in board.groups() for member in group]
    names = {name: escape(say.contender(name, label_of(name, board.labels))) for name in ids}
    cells = {(cell.one, cell.other): cell for cell in board.matrix}
    body = ""
    for number, row in enumerate(ids, start=1):
        line = "".join(_cell(cells.get((row, column)), say) for column in ids)
        mark = f'<span class="narrow">{number} </span>'
        body += f'<tr><th scope="row">{mark}{names[row]}</th>{line}</tr>'
    head = "".join(
        f'<th scope="col"><span class="wide">{names[name]}</span>'
        f'<span class="narrow" title="{names[name]}">{number}</span></th>'
        for number, name in enumerate(ids, start=1)
    )
    few = any(met.few for met in cells.values())
    note = f"{say('board.matrix.note')} {say('board.matrix.few', n=HIDDEN_BELOW) if few else ''}"
    return (
        f'<div class="frame" tabindex="0"><table class="tally matrix"><thead><tr><td></td>{head}'
        f'</tr></thead><tbody>{body}</tbody></table></div><p class="quiet">{escape(note)}</p>'
    )


def _cell(met: Meeting | None, say: Texts) -> str:
    if met is None or met.share is None:
        return '<td class="none">·</td>'
    if met.few:
        return f"<td>{met.wins}–{met.losses}</td>"
    weight = abs(met.share - 0.5) * 80
    kind = "won" if met.share > 0.5 else "lost"
    return (
        f'<td class="{kind}" style="--w:{weight:.0f}%">{say.number(f"{met.share:.0%}")}'
        f"<small> {met.games}</small></td>"
    )


def days(board: Board, say: Texts) -> str:
    """Return the votes per day as a small line chart; of a single day, a sentence."""
    counts = board.days[-_DAYS:]
    if not counts:
        return ""
    if len(counts) == 1:
        (day, votes), *_ = counts
        return f"<p>{escape(say.count('board.day', votes, day=day))}</p>"
    most, step = max(n for _, n in counts), 300 / (len(counts) - 1)
    points = [(i * step, 52 - 44 * n / most) for i, (_, n) in enumerate(counts)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    label = escape(
        say("board.days.alt", first=counts[0][0], last=counts[-1][0], most=most, n=counts[-1][1])
    )
    return (
        f'<svg viewBox="-6 0 312 60" class="days" role="img" aria-label="{label}">'
        f'<polyline points="{line}"/>{dots}</svg><p class="quiet">{label}</p>'
    )
