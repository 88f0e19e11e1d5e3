"""Turns and dialogues, and the rules of every dialogue.

This module knows no models, pages or storage. Every `Dialogue` is valid: it starts with the user,
roles alternate, no turn is empty, and no turn contains a control character.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from empo_demo.errors import InvalidInput

Role = Literal["user", "assistant"]
Message = dict[str, str]
"""One chat message in the form of all chat templates: ``{"role": …, "content": …}``."""

MAX_TEXT = 2_000
"""The most characters of a visitor's text."""
MAX_TURNS = 40
"""The most turns of a dialogue on which a round may be opened."""

SYSTEM_PROMPT = (
    "You are talking with someone who tells you about something that happened to them. "
    "Answer in one or two sentences, warmly and to the point: show that you understood how they "
    "feel and why, and keep the conversation going."
)
"""The system prompt of chat models. Both sides of a round always get the same."""

_LINE_BREAK = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
"""What Word, PowerPoint, PDF files and old systems write for a line break."""
_SHOWS_NOTHING = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f"
    # Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt)
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # Blank in every font, although Unicode lists them as visible: Braille, music, Khitan and
    # Egyptian blanks, marks of annotations, and the place of a picture that was not pasted.
    r"\u2800\U0001d159\U00016fe4\U00013441\U00013442\ufff9-\ufffc]*"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance. `content` is stripped, non-empty and free of control characters."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise InvalidInput(
                "A turn's role is {role}; it must be 'user' or 'assistant'.", role=repr(self.role)
            )
        object.__setattr__(self, "content", clean_text(self.content))

    def message(self) -> Message:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Alternating turns, the user's first. It may be empty, and may end with either role."""

    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        if len(self.turns) > MAX_TURNS:
            raise InvalidInput(
                "The dialogue has {n} turns; at most {most} are taken. Start a new dialogue.",
                n=len(self.turns),
                most=MAX_TURNS,
            )
        for position, turn in enumerate(self.turns):
            expected: Role = "user" if position % 2 == 0 else "assistant"
            if turn.role != expected:
                raise InvalidInput(
                    "Turn {n} of the dialogue is the {role}'s; it must be the {other}'s: a "
                    "dialogue starts with the user and the roles alternate.",
                    n=position + 1,
                    role=turn.role,
                    other=expected,
                )

    @classmethod
    def from_messages(cls, messages: Iterable[Mapping[str, Any]]) -> Dialogue:
        """Read ``[{"role", "content"}, …]``; raise `InvalidInput` on anything else."""
        turns = []
        for position, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
                raise InvalidInput(
                    "Turn {n} of the dialogue must be an object with the texts 'role' and "
                    "'content'.",
                    n=position,
                )
            turns.append(Turn(message.get("role"), message["content"]))  # type: ignore[arg-type]
        return cls(tuple(turns))

    def messages(self, system: str = "") -> list[Message]:
        """The dialogue as chat messages, after `system` if that is not empty."""
        head: list[Message] = [{"role": "system", "content": system}] if system else []
        return head + [turn.message() for turn in self.turns]

    def plus(self, role: Role, content: str) -> Dialogue:
        return Dialogue((*self.turns, Turn(role, content)))

    @property
    def digest(self) -> str:
        """The SHA-256 of the messages: equal dialogues have equal digests."""
        return hashlib.sha256(json.dumps(self.messages()).encode()).hexdigest()

    @property
    def last_user_turn(self) -> Turn | None:
        return next((turn for turn in reversed(self.turns) if turn.role == "user"), None)


def is_blank(text: str) -> bool:
    """Whether `text` shows nothing: it is empty, or holds only characters without a shape."""
    return _SHOWS_NOTHING.fullmatch(text) is not None


def with_plain_breaks(text: str) -> str:
    """`text` with `\\n` for every line break that Unicode knows."""
    return _LINE_BREAK.sub("\n", text)


def plain_commas(text: str) -> str:
    """`text` with commas where the authors of EmpatheticDialogues wrote `_comma_`."""
    return text.replace("_comma_", ",")


def clean_text(text: str, *, limit: int | None = None) -> str:
    """Strip `text`; refuse it if it is blank, too long, or contains control characters.

    Line breaks of every kind become `\\n`. Tabs and format characters (emoji joiners, text
    direction) are allowed.
    """
    if not isinstance(text, str):
        raise InvalidInput("A text was expected, but something else was sent.")
    if is_blank(text):
        raise InvalidInput("The text is empty. Write what happened, in at least one word.")
    stripped = with_plain_breaks(text).strip()
    if limit is not None and len(stripped) > limit:
        raise InvalidInput(
            "The text has {n} characters; at most {most} are taken. Shorten it.",
            n=f"{len(stripped):,}",
            most=f"{limit:,}",
        )
    for character in stripped:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise InvalidInput(
                "The text holds a control character (U+{code}). Remove it, or type the text "
                "instead of pasting it.",
                code=f"{ord(character):04X}",
            )
    return stripped
