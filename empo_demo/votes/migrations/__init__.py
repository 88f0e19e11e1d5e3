"""The history of the schema. `Store.open` migrates up. No revision is ever removed.

`REVISIONS` lists them from the oldest on. So a database at the newest one opens without loading
Alembic, and one of a newer app can be told from a damaged one.
"""

from __future__ import annotations

REVISIONS: tuple[str, ...] = ("0001", "0002", "0003", "0004", "0005", "0006")
HEAD = REVISIONS[-1]
