"""Finds personal data in a text, and masks it.

`phonenumbers` (Google's rules for every country) finds phone numbers. Patterns of our own find
e-mail addresses, links, handles and postal addresses, because the maintained masking libraries need
large language models. Pure, no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PersonalKind = Literal["email", "link", "phone", "handle", "address"]

_EMAIL = re.compile(
    r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,24}\b"
    r"|\b[\w.+-]+ ?[\[(] ?at ?[\])] ?[\w-]+ ?(?:[\[(] ?dot ?[\])]|\.) ?[a-z]{2,24}\b"
    r"|\b[\w.+-]+ at [\w-]+ dot (?:com|org|net|edu|de|co|uk|io|fr|es|it|nl)\b",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"\b(?:https?://|www\.)[^\s<>\"')]*[^\s<>\"').,!?;:]"
    r"|\b(?:[a-z0-9-]+\.)+(?-i:com|org|net|edu|gov|io|me|app|dev|info|biz|gg|ly|co\.uk|de|fr|es|it"
    r"|nl|eu|ru|cn|jp|br|ca|au|us|tv|xyz|online|site|blog)(?:/[^\s<>\"')]*|\b(?!\.?\w))",
    re.IGNORECASE,
)
_HANDLE = re.compile(
    r"(?<![\w@.])@[a-z_][\w.]{1,29}(?<!\.)"
    r"|(?<!\w)/?u/[\w-]{3,20}\b"
    r"|\b[\w.]{2,32}#\d{4}\b"
    r"|\b(?:(?:my )?(?:insta(?:gram)?|snap(?:chat)?|tik ?tok|twitter|discord|telegram|skype|kik"
    r"|whats ?app|facebook|fb|venmo|cashapp)(?: (?:handle|name|user ?name|id|account))?"
    r"(?: is|:| =)|(?:my )?(?:user ?name|handle) (?:is|:)) ?"
    r"(?P<name>[\w.]{3,32}[\d_.][\w.]*|[\w]*_\w+)",
    re.IGNORECASE,
)
_ROAD = (
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|square|sq"
    r"|terrace|way|close|crescent|parkway|pkwy|highway|hwy|circle|cir|row|gardens|mews)"
)
_CASED_ADDRESS = re.compile(
    rf"\b\d{{1,5}}[a-z]?,? (?:(?:[NSEW]|North|South|East|West)\.? )?"
    rf"(?:(?:[A-Z][\w'’-]*|\d+(?:st|nd|rd|th)|"
    rf"of|the|de|la) ){{1,4}}(?i:{_ROAD})\b\.?"
    r"(?:,? (?:(?i:apt|apartment|unit|suite|flat|#)\.? ?\w{1,5}))?"
    r"(?:,? [A-Z][\w'’-]+(?: [A-Z][\w'’-]+){0,2})?(?:,? [A-Z]{2})?(?:,? \d{5}(?:-\d{4})?)?"
    r"|\b(?i:p\.? ?o\.? ?box) \d{1,6}\b"
    r"|\b[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b"
    r"|\b[A-Z]\d[A-Z] ?\d[A-Z]\d\b"
    r"|\b[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|str\.|weg|gasse|allee|platz) \d{1,4}[a-z]?\b"
    r"(?:,? \d{4,5} [A-ZÄÖÜ][\wäöüß-]+)?"
    r"|\b\d{1,4}(?: bis)?,? (?:rue|avenue|boulevard|place|impasse|chemin) "
    r"(?:d[eu]s? |de la |de l['’])?[\w'’-]+"
    r"|\b(?:[Cc]alle|[Aa]venida|[Vv]ia|[Pp]iazza|[Rr]ua) (?:de(?: la)? |del |dei )?"
    r"[A-ZÁÉÍÓÚ][\w'’-]+,? \d{1,4}\b"
)
_LOWER_ADDRESS = re.compile(
    r"\b(?:live|lives|living|address is|address:|stay|staying|house is|home is|come to|meet me"
    r"|send it)"
    rf"(?: (?:at|on|to|in))? (?P<name>\d{{1,5}}[a-z]?,? (?:[\w'’-]+ ){{1,3}}{_ROAD}\b)",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{4} ?[-–] ?\d{4})\Z"
)
_SPOKEN = re.compile(
    r"\b(?:call|text|phone|ring|reach|contact|number|cell|mobile|whats ?app|tel|fax)\b[^\d+]{0,30}"
    r"(?P<name>\+?\(?\d[\d ().-]{5,18}\d)",
    re.IGNORECASE,
)
_SPOKEN_AFTER = re.compile(
    r"(?P<name>\+?\(?\d[\d ().-]{5,18}\d) is (?:my|the|his|her|our) "
    r"(?:new |home |work )?(?:number|cell|phone|mobile)",
    re.IGNORECASE,
)
_US_LOCAL = re.compile(
    r"(?<![\d$€£.,-])(?P<name>(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}|\d{3}-\d{4})(?![\d-])"
)
_MASKS: dict[str, str] = {
    "email": "[e-mail]",
    "link": "[link]",
    "phone": "[phone number]",
    "handle": "[user name]",
    "address": "[address]",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of personal data: characters `start`..`end` of the text as it was given."""

    start: int
    end: int
    kind: PersonalKind


def find_personal(text: str, region: str = "US") -> tuple[Span, ...]:
    """Non-overlapping spans in text order. `region` (ISO code) is for national phone numbers."""
    spans = [
        *_spans(_EMAIL, text, "email"),
        *_spans(_LINK, text, "link"),
        *_spans(_HANDLE, text, "handle"),
        *_spans(_CASED_ADDRESS, text, "address"),
        *_spans(_LOWER_ADDRESS, text, "address"),
        *_phones(text, region),
    ]
    apart: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or span.start >= other.end for other in apart):
            apart.append(span)
    return tuple(sorted(apart, key=lambda span: span.start))


def mask_personal(text: str, region: str = "US") -> str:
    """`text` with every span of `find_personal` replaced by its kind in brackets."""
    for span in reversed(find_personal(text, region)):
        text = text[: span.start] + _MASKS[span.kind] + text[span.end :]
    return text


def mask_words(
    text: str, words: Sequence[Mapping[str, Any]], region: str = "US"
) -> list[dict[str, Any]]:
    """`words` of `text` (`start`, `end`, `text`, and more), at their places in the masked text.

    A word inside personal data becomes the mask; of several in one mask the first one stays. What
    does not lie where it says, as in an imported record, is left out.
    """
    spans = find_personal(text, region)
    masked = mask_personal(text, region)

    def place(at: int) -> int:
        """Where the boundary `at`, which no span crosses, lies in the masked text."""
        return at + sum(len(_MASKS[s.kind]) - (s.end - s.start) for s in spans if s.end <= at)

    by_place: dict[tuple[int, int], dict[str, Any]] = {}
    for word in words:
        start, end = int(word["start"]), int(word["end"])
        if not 0 <= start < end or text[start:end] != word["text"]:
            continue
        hidden = [span for span in spans if span.start < end and start < span.end]
        low = place(min([start, *(span.start for span in hidden)]))
        high = place(max([end, *(span.end for span in hidden)]))
        by_place.setdefault(
            (low, high), {**word, "start": low, "end": high, "text": masked[low:high]}
        )
    return list(by_place.values())


def _spans(pattern: re.Pattern[str], text: str, kind: PersonalKind) -> list[Span]:
    spans = []
    for match in pattern.finditer(text):
        group = "name" if match.groupdict().get("name") else 0
        spans.append(Span(match.start(group), match.end(group), kind))
    return spans


def _phones(text: str, region: str) -> list[Span]:
    """Numbers that the library finds valid, announced numbers, and the usual US form."""
    if sum(map(str.isdigit, text)) < 7:
        return []
    import phonenumbers

    phones = [
        Span(match.start, match.end, "phone")
        for match in phonenumbers.PhoneNumberMatcher(text, region.upper())
    ]
    phones += [*_spans(_SPOKEN, text, "phone"), *_spans(_SPOKEN_AFTER, text, "phone")]
    phones += [*_spans(_US_LOCAL, text, "phone")]
    return [
        span
        for span in phones
        if not _DATE.match(text[span.start : span.end])
        and sum(map(str.isdigit, text[span.start : span.end])) >= 7
    ]
