"""The errors that people see: one base class, one line of plain words each.

A message says what was wrong, what was expected and what to do. Anything that is not an
`ArenaError` is a bug: the page shows a general sentence and the log the traceback.
"""

from __future__ import annotations


class ArenaError(Exception):
    """Base of every error whose message is written for people."""

    @property
    def public(self) -> str:
        """The message that a visitor of the page may read."""
        return str(self)


class InvalidInput(ArenaError):
    """The input cannot be used: it is empty, too long, malformed, or of the wrong kind."""


class NotAllowed(ArenaError):
    """The request is well formed, but this caller may not make it, or not now."""


class NotFound(ArenaError):
    """There is no such round, contender, file or model."""


class SettingsError(ArenaError):
    """An `EMPO_*` variable or a flag has a value that is not allowed."""


class EngineError(ArenaError):
    """The models could not be loaded, or could not answer."""


class StorageError(ArenaError):
    """The database cannot be read or written now. No half-written data remains.

    `public` is the message without the address of the database.
    """

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self._public = public or message

    @property
    def public(self) -> str:
        return self._public


class DataError(ArenaError):
    """A data file is missing or malformed. The message names the file and, if known, the line."""


class SEMFailure(ArenaError):
    """The SEM could not read a turn, or its answer is invalid. The round continues without it."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, as a sentence."""
    line = " ".join(str(error).strip().split("\n")[0].split())[:300]
    return line if line.endswith((".", "!", "?")) else f"{line}."
