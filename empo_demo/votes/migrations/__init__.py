"""The schema's history. `Store.open` migrates up; every revision is kept for ever.

`REVISIONS` lists them from the oldest on, so that a database at the newest one opens without
loading Alembic, and one from a newer app is told from a damaged one.
"""

from __future__ import annotations

REVISIONS: tuple[str, ...] = ("0001", "0002")
HEAD = REVISIONS[-1]
