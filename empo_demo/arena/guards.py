"""Checks of everything that a stranger may send before a round is opened.

Each check raises an `ArenaError` that says what was wrong and what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empo_demo.arena.rounds import Notice
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text, is_blank
from empo_demo.empathy import safety
from empo_demo.empathy.safety import Assessment
from empo_demo.errors import InvalidInput, NotAllowed
from empo_demo.votes import consent as consents
from empo_demo.votes.models import MAX_COMMENT, RATINGS, SIDES, VERDICTS, Round

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}\Z")
_ROUND = re.compile(r"[0-9a-f]{32}\Z")
MAX_REPLY = 8_000
ENGLISH = "english"
"""The kind of the notice on a text in another language."""
_MOST_READ = 4 * MAX_TEXT
"""The characters of a text that are searched for a crisis, if it is longer than may be sent."""


class HelpFirst(NotAllowed):
    """Someone may be in crisis: nobody answers, reads or stores the text; `notice` says who helps.

    The message holds the lines of the notice, for clients that show only messages.
    """

    def __init__(self, notice: Notice) -> None:
        lines = "; ".join(f"{label} ({address})" for label, address in notice.links)
        super().__init__(f"{notice.title}. {notice.text} {lines}.")
        self.notice = notice


@dataclass(frozen=True, slots=True)
class Judged:
    """A visitor's text and what the safety checks found in it, so that they look at it once."""

    text: str
    found: Assessment

    @property
    def notices(self) -> tuple[str, ...]:
        """The kinds of its notices, which are kept with the round. They hold nothing of the text.

        Crisis language has none here, because such a text opens no round.
        """
        personal = tuple(dict.fromkeys(span.kind for span in self.found.personal))
        return personal if self.found.english else (*personal, ENGLISH)

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """The notices before it is sent: only if it contains personal data."""
        return notices_of(self.notices) if self.found.personal else ()


@dataclass(frozen=True, slots=True)
class Flags:
    """What the safety checks found in the user turns; `notices` and `english` are the newest's.

    `crisis` is what the patterns alone found; `check_crisis` alone refuses a round.
    """

    crisis: bool = False
    personal: bool = False
    identity: bool = False
    english: bool = True
    notices: tuple[str, ...] = ()

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> Flags:
        """Return the flags of a dialogue's user turns."""
        if not judged:
            return cls()
        return cls(
            crisis=any(judgement.found.crisis for judgement in judged),
            personal=any(judgement.found.personal for judgement in judged),
            identity=any(judgement.found.identity for judgement in judged),
            english=judged[-1].found.english,
            notices=judged[-1].notices,
        )


def check_token(token: str) -> str:
    if not isinstance(token, str) or not _TOKEN.match(token):
        raise NotAllowed(
            "The voter's token is missing or malformed. Reload the page to get one "
            "(an API client calls new_voter)."
        )
    return token


def check_round_id(round_id: str) -> str:
    """A well-formed id unchanged; for anything else an id that no round has."""
    return round_id if isinstance(round_id, str) and _ROUND.match(round_id) else ""


def check_consent(consent: str | None) -> str | None:
    if consent in (None, ""):
        return None
    if consent not in consents.VERSIONS:
        raise InvalidInput(
            "The consent text has changed since you agreed. Read the current one and agree "
            "again, or go on without."
        )
    return consent


def check_earlier_turns(parent: Round | None, consent: str | None) -> None:
    """Refuse to keep a dialogue in which the visitor wrote before they agreed.

    `parent` is the round that the dialogue goes on from. An example's words are not the visitor's.
    """
    if consent and parent is not None and parent.ephemeral and parent.origin != "example":
        raise NotAllowed(
            "You wrote in this dialogue before you agreed, so it is not kept: start a new "
            "dialogue, or go on without agreeing."
        )


def check_dialogue(dialogue: Dialogue, text: str) -> Dialogue:
    """The dialogue with the visitor's new turn. Raises `InvalidInput` with the reason."""
    if dialogue.turns and dialogue.turns[-1].role == "user":
        raise InvalidInput(
            "The dialogue ends with a turn of the user; it must end with a reply before a new "
            "text is sent. Vote first, or start a new dialogue."
        )
    for position, turn in enumerate(dialogue.turns, start=1):
        most = MAX_TEXT if turn.role == "user" else MAX_REPLY
        if len(turn.content) > most:
            raise InvalidInput(
                "Turn {n} of the dialogue has {length} characters; at most {most} are taken. Start "
                "a new dialogue.",
                n=position,
                length=f"{len(turn.content):,}",
                most=f"{most:,}",
            )
    return dialogue.plus("user", clean_text(text, limit=MAX_TEXT))


def check_verdict(verdict: str) -> str:
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        raise InvalidInput(
            "There is no verdict {name}; there are: {known}.",
            name=repr(str(verdict)[:40]),
            known=", ".join(VERDICTS),
        )
    return verdict


def check_ratings(ratings: Mapping[str, Any] | None, chosen: str) -> dict[str, int]:
    """Ratings by `side_dimension`. A bare dimension means the `chosen` side."""
    checked: dict[str, int] = {}
    if ratings is not None and not isinstance(ratings, Mapping):
        raise InvalidInput("Ratings must be an object of slider names and numbers.")
    for key, value in (ratings or {}).items():
        name = f"{chosen}_{key}" if key in RATINGS else str(key)
        side, _, dimension = name.partition("_")
        if side not in SIDES or dimension not in RATINGS:
            known = ", ".join(f"a_{r}" for r in RATINGS)
            raise InvalidInput(
                "There is no slider {name}; there are: {known}, b_….",
                name=repr(name[:40]),
                known=known,
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise InvalidInput(
                "The slider {name} holds {value}; it may hold a number from 0 to 100.",
                name=name,
                value=repr(str(value)[:40]),
            )
        checked[name] = round(value)
    return checked


def check_comment(comment: str) -> str:
    if not isinstance(comment, str):
        raise InvalidInput("The comment must be a text.")
    return "" if is_blank(comment) else clean_text(comment, limit=MAX_COMMENT)


def said_by_user(dialogue: Dialogue) -> list[str]:
    """The user's turns."""
    return [turn.content for turn in dialogue.turns if turn.role == "user"]


def check_crisis(texts: Sequence[object], country: str, sem: object = None) -> None:
    """Raise `HelpFirst` with the help of `country` if one of `texts` speaks of a crisis.

    `sem` helps to judge, if it can. What is not a text is left to the other checks.
    """
    said = [text[:_MOST_READ] for text in texts if isinstance(text, str)]
    kinds = safety.crisis_in(said, sem)
    if kinds:
        raise help_first(country, kinds)


def help_first(country: str, kinds: Sequence[str] = ()) -> HelpFirst:
    """The refusal with the help of `country`."""
    notice = safety.crisis_notice(country, kinds)
    return HelpFirst(Notice(notice.kind, notice.title, notice.text, notice.links))


def judge(texts: Sequence[object], country: str, sem: object = None) -> list[Judged]:
    """Look at each of a user's texts once; raise `HelpFirst` if one of them speaks of a crisis.

    The crisis comes first and on its own: help must be shown whatever else is broken. Nothing else
    is looked for in what is not a text, or is longer than may be sent.
    """
    check_crisis(texts, country, sem)
    return [
        Judged(text, safety.assess(text, country))
        if isinstance(text, str) and len(text) <= MAX_TEXT
        else Judged("", Assessment())
        for text in texts
    ]


def assess(dialogue: Dialogue, country: str) -> Flags:
    """Return the flags of a stored dialogue, which may be of an earlier version."""
    said = said_by_user(dialogue)
    return Flags.of([Judged(text, safety.assess(text, country)) for text in said])


def noticed_in(comment: str, country: str) -> dict[str, bool]:
    """What in a comment keeps its round from being published, as in a text."""
    if not comment:
        return {}
    assessment = safety.assess(comment, country)
    crisis = assessment.crisis or safety.crisis_in([comment])
    return {"crisis": bool(crisis), "personal": bool(assessment.personal)}


def notices_of(kinds: Sequence[str]) -> tuple[Notice, ...]:
    """Return the notices of these kinds: those of personal data in one, and that on English."""
    personal = [kind for kind in kinds if kind != ENGLISH]
    notices = [safety.personal_notice(personal)] if personal else []
    if ENGLISH in kinds:
        notices.append(safety.english_notice())
    return tuple(Notice(n.kind, n.title, n.text, n.links) for n in notices)


def screen(reply: str) -> str | None:
    """The reason why a reply must not be shown; None if it may be."""
    return safety.screen_reply(reply)
