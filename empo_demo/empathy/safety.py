"""What must be noticed in a visitor's text before a reply, and in a reply before it is shown.

`assess` finds crisis language, personal data, questions about the model and other languages.
`crisis_notice` says where help is. `screen_reply` says why a reply must be withheld. Our lists of
patterns are in `assets/safety`. No network; without a SEM well under 5 ms per text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from empo_demo.empathy import crisis
from empo_demo.empathy.crisis import load_patterns
from empo_demo.empathy.language import is_english
from empo_demo.empathy.personal import Span, find_personal, mask_personal
from empo_demo.errors import Sentence
from empo_demo.settings import ASSETS

__all__ = [
    "Assessment",
    "SafetyNotice",
    "Span",
    "assess",
    "countries",
    "crisis_in",
    "crisis_notice",
    "english_notice",
    "mask_personal",
    "personal_notice",
    "screen_reply",
]

log = logging.getLogger(__name__)
CrisisKind = Literal["self-harm", "violence", "abuse"]
KINDS: tuple[CrisisKind, ...] = ("self-harm", "violence", "abuse")
_NAMES = {
    "email": "an e-mail address",
    "link": "a link",
    "phone": "a phone number",
    "handle": "a user name",
    "address": "a postal address",
}


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found in one text. `crisis` has no, one or several kinds, found by patterns alone;
    spans are characters."""

    crisis: tuple[CrisisKind, ...] = ()
    personal: tuple[Span, ...] = ()
    identity: bool = False
    english: bool = True


@dataclass(frozen=True, slots=True)
class SafetyNotice:
    """Something to show beside a text: a `title`, a `text`, and `links` as (label, address)."""

    kind: Literal["crisis", "personal", "english"]
    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()


def assess(text: str, country: str = "international") -> Assessment:
    """Check one text of a visitor. `country` only helps to read national phone numbers."""
    return Assessment(
        crisis=_patterns_in(text),
        personal=find_personal(text, _region(country)),
        identity=bool(load_patterns("identity").sections_in(text)),
        english=is_english(text),
    )


def crisis_in(texts: Sequence[str], sem: object = None) -> tuple[CrisisKind, ...]:
    """The kinds of crisis that any of `texts` speaks of; it depends on no other check here.

    Self-harm is judged by the classifier, with the states of `sem` if it has them. If the
    classifier fails, the patterns decide.
    """
    kinds = {kind for text in texts for kind in _patterns_in(text)}
    try:
        judged = any(crisis.self_harm(texts, lambda text: "self-harm" in _patterns_in(text), sem))
    except Exception as error:
        # No traceback: the message of an error may quote what was written.
        log.error("The crisis classifier failed (%s); the patterns decide.", type(error).__name__)
    else:
        kinds = (kinds - {"self-harm"}) | ({"self-harm"} if judged else set())
    return tuple(kind for kind in KINDS if kind in kinds)


def _patterns_in(text: str) -> tuple[CrisisKind, ...]:
    return cast("tuple[CrisisKind, ...]", load_patterns("crisis", "idioms").sections_in(text))


def screen_reply(text: str) -> str | None:
    """Why `text` must not be shown (it encourages harm, excuses abuse); None if it may be."""
    sections = load_patterns("replies", "spared").sections_in(text)
    return f"The reply {sections[0]}." if sections else None


def crisis_notice(country: str, kinds: Iterable[str] = ()) -> SafetyNotice:
    """Where to find help in `country` (ISO code). Unknown codes get the international notice.

    Lines for abuse come first if `kinds` names abuse. It never raises: help must always be shown.
    """
    book = _helplines()
    place = book["countries"].get(_key(country)) or book["countries"]["international"]
    abuse = "abuse" in kinds
    lines = sorted(place["lines"], key=lambda line: (line.get("for") == "abuse") != abuse)
    links = [(line["label"], line["url"]) for line in lines]
    links += [
        (Sentence("Emergency: {number}", number=number), f"tel:{number}")
        for number in place["emergency"]
        if "emergency_note" not in place
    ]
    links += [(entry["label"], entry["url"]) for entry in book["directories"]]
    if abuse:
        links.append((book["abuse_directory"]["label"], book["abuse_directory"]["url"]))
    return SafetyNotice(
        "crisis", "You do not have to go through this alone", _words(place), tuple(links)
    )


def personal_notice(kinds: Iterable[str]) -> SafetyNotice:
    """Warn of what could tell who someone is; `kinds` are those of the spans that were found."""
    return SafetyNotice(
        "personal",
        "This looks like personal data",
        Sentence(
            "Your text holds {what}. Leave it out if you can: the arena does not need it, and it "
            "is masked in everything that is published.",
            what=tuple(dict.fromkeys(_NAMES[kind] for kind in kinds)),
        ),
    )


def english_notice() -> SafetyNotice:
    """Say that the emotion reading of a text in another language is unreliable."""
    return SafetyNotice(
        "english",
        "This does not look like English",
        "The emotion reading and the small models understand English only. You can go on, but "
        "what you see will say little.",
    )


def countries() -> dict[str, str]:
    """The country codes that have their own helplines, with the names of the countries."""
    entries = _helplines()["countries"]
    return {code: entry["name"] for code, entry in entries.items() if code != "international"}


def _words(place: dict[str, Any]) -> Sentence:
    numbers = " or ".join(place["emergency"])
    emergency = place.get("emergency_note") or Sentence(
        f"{{number}} in {place['name']}", number=numbers
    )
    return Sentence(
        "What you wrote sounds serious, and the models here cannot help with it. If you or someone "
        "else is in danger now, call {number}. To talk to a person, in confidence, use one of the "
        "lines below. No model answers this text, and it was not stored. If it was not meant that "
        "way, say it in other words.",
        number=emergency,
    )


def _key(country: str) -> str:
    code = re.sub(r"[^a-z]", "", country.lower())
    return "gb" if code == "uk" else code


def _region(country: str) -> str:
    code = _key(country)
    return code.upper() if code in _helplines()["countries"] and len(code) == 2 else "US"


@cache
def _helplines() -> dict[str, Any]:
    path = ASSETS / "safety" / "helplines.json"
    return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf8")))
