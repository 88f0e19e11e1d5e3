"""The errors that a person is shown: one base class, one line of plain words each.

A message says what was wrong, what was expected and what to do. Anything that is not an
`ArenaError` is a bug: the page shows a general sentence and the log the traceback.
"""

from __future__ import annotations


class ArenaError(Exception):
    """Base of every error whose message is written for the person who caused or met it."""

    @property
    def public(self) -> str:
        """What a visitor of the page may read of it."""
        return str(self)


class InvalidInput(ArenaError):
    """What was sent cannot be used: empty, too long, malformed, of the wrong kind."""


class NotAllowed(ArenaError):
    """The request is well formed but not this caller's to make, or not now."""


class NotFound(ArenaError):
    """There is no such round, contender, file or model."""


class SettingsError(ArenaError):
    """An `EMPO_*` variable or a flag holds something that it may not hold."""


class EngineError(ArenaError):
    """The models could not be loaded, or could not answer."""


class StorageError(ArenaError):
    """The database cannot be read or written at present. Nothing half-written remains.

    `public` is the message without the place of the database.
    """

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self._public = public or message

    @property
    def public(self) -> str:
        return self._public


class DataError(ArenaError):
    """A file of data is missing or malformed; names the file and, where it can, the line."""


class SEMFailure(ArenaError):
    """The SEM could not read a turn, or its answer cannot be used; the round goes on without."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, as a sentence."""
    line = " ".join(str(error).strip().split("\n")[0].split())[:300]
    return line if line.endswith((".", "!", "?")) else f"{line}."
