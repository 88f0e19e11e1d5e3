"""Plain tables for the tabs: text in, escaped markup out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from empo_demo.ui.texts import Texts


def of_rows(rows: Sequence[Mapping[str, str]], say: Texts) -> str:
    """A table of dictionaries that share their keys, in the words of `say`; empty without rows."""
    if not rows:
        return ""
    lines = [list(map(say.own, row.values())) for row in rows]
    return of_lines(list(map(say.own, rows[0])), lines)


def of_lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a head; wide ones scroll inside their own frame."""
    top = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return (
        f'<div class="frame" tabindex="0"><table class="tally"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
