"""What people are told: sentences that other languages can look up, and the errors made of them.

A message says what was wrong, what was expected and what to do. Anything that is not an
`ArenaError` is a bug: the page shows a general sentence and the log the traceback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

SIDE_FAILED = "Side {side} failed: {error}"
SIDE_SILENT = "Side {side} had nothing to say."
SERVER_ERROR = (
    "The model server answered with an error ({status}); try again, or tell who runs this app: the "
    "log has the server's words."
)
_STORED = (SIDE_FAILED, SIDE_SILENT, SERVER_ERROR)
"""The keys of the sentences that are stored with values in them."""


class Sentence(str):
    """An English text that knows its `key`, a template, and the `values` of the template's gaps.

    It goes wherever a text goes. Another language looks the key up, and translates those of the
    values that are sentences or words of ours. A tuple is a list: "one, two and three".
    """

    key: str
    values: Mapping[str, object]

    def __new__(cls, key: str, **values: object) -> Self:
        english = {name: _english(value) for name, value in values.items()}
        made = super().__new__(cls, key.format(**english) if values else key)
        made.key, made.values = key, values
        return made

    @classmethod
    def of(cls, text: str) -> Sentence:
        """Return `text` itself if it is a sentence, else a sentence without values."""
        return text if isinstance(text, Sentence) else cls(text)

    @classmethod
    def stored(cls, text: str | None) -> Sentence:
        """Return a sentence that comes from the database, where it is plain English."""
        for key in _STORED:
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(key))
            match = re.fullmatch(pattern, text or "", re.DOTALL)
            if match:
                return cls(
                    key, **{name: cls.stored(part) for name, part in match.groupdict().items()}
                )
        return cls(text or "")


def _english(value: object) -> object:
    if not isinstance(value, tuple):
        return value
    *most, last = map(str, value)
    return f"{', '.join(most)} and {last}" if most else last


class ArenaError(Exception):
    """Base of every error whose message is written for people.

    `message` is a sentence, or the key of one whose gaps `values` fill.
    """

    def __init__(self, message: str = "", **values: object) -> None:
        self.sentence = Sentence(message, **values) if values else Sentence.of(message)
        super().__init__(self.sentence)

    @property
    def public(self) -> Sentence:
        """The message that a visitor of the page may read."""
        return self.sentence


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
        self._public = Sentence.of(public or message)

    @property
    def public(self) -> Sentence:
        return self._public


class DataError(ArenaError):
    """A data file is missing or malformed. The message names the file and, if known, the line."""


class SEMFailure(ArenaError):
    """The SEM could not read a turn, or its answer is invalid. The round continues without it."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, as a sentence. Without words it is the error's kind."""
    line = " ".join(str(error).strip().split("\n")[0].split())[:300]
    if not line or isinstance(error, KeyError):
        # The only words of a KeyError are the key.
        line = f"{type(error).__name__} {line}".strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
