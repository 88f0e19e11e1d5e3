"""Texts as people paste them: every kind of line break is one, and what shows nothing is empty."""

from __future__ import annotations

import unicodedata

import pytest

from empo_demo.arena.guards import check_comment
from empo_demo.arena.live import showable
from empo_demo.dialogue import Dialogue, Turn, clean_text, is_blank
from empo_demo.errors import InvalidInput

BREAKS = {
    "U+000B of Word": "\v",
    "U+000C of a PDF": "\f",
    "U+0085": "\x85",
    "U+2028": "\u2028",
    "U+2029": "\u2029",
    "CR LF": "\r\n",
    "CR": "\r",
}
BLANK = {
    "zero-width spaces": "\u200b\u200c\u200d\ufeff",
    "word joiner": "\u2060",
    "soft hyphen": "\xad",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Braille blank": "\u2800",
    "variation selectors": "\ufe0e\ufe0f\U000e0100\u180b",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "marks of direction": "\u200e\u200f\u061c\u202a\u202e\u2066\u2069",
    "joiner": "\u034f",
    "Khmer vowels that are not shown": "\u17b4\u17b5",
    "invisible operators": "\u2061\u2062\u2063",
    "spaces": "\xa0\u2003\u3000\u1680\u202f",
    "annotation marks": "\ufff9\ufffb",
    "a picture that was not pasted": "\ufffc",
    "shorthand": "\U0001bca0",
    "music": "\U0001d159\U0001d173",
    "Khitan filler": "\U00016fe4",
    "Egyptian blank": "\U00013441",
    "some of all, in lines": " \u2800\n\u200b\u2028\ufe0f\v\t",
}
SHOWN = ("a", "❤️", "👨‍👩‍👧", "नमस्ते", "می‌خواهم", "한", "⠁", "5\ufe0f\u20e3", "…", "\u200fشكرا", "؁")


@pytest.mark.parametrize("mark", BREAKS.values(), ids=BREAKS)
def test_a_pasted_line_break_is_a_line_break(mark: str) -> None:
    assert clean_text(f"My dog died.{mark}I miss him.{mark}") == "My dog died.\nI miss him."
    assert showable(f"I am so sorry.{mark}What was his name?") == (
        "I am so sorry.\nWhat was his name?"
    )
    assert Dialogue((Turn("user", f"a{mark}b"),)).turns[0].content == "a\nb"


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_what_shows_nothing_is_empty(text: str) -> None:
    assert is_blank(text)
    with pytest.raises(InvalidInput, match="The text is empty"):
        clean_text(text)
    assert check_comment(text) == ""
    assert showable(text) == "", "a reply that shows nothing cannot be voted on"


def test_every_invisible_character_of_unicode_is_blank() -> None:
    """All spaces and format characters, but for the signs that are drawn around others."""
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    drawn |= set(range(0x13430, 0x13440))
    hidden = [
        character
        for number in range(0x110000)
        if unicodedata.category(character := chr(number)) in ("Cf", "Zs", "Zl", "Zp", "Cc")
        and number not in drawn
    ]
    assert [hex(ord(one)) for one in hidden if not is_blank(one)] == []
    assert not any(is_blank(chr(number)) for number in drawn)


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_shown_is_kept_as_it_is(text: str) -> None:
    assert not is_blank(text) and clean_text(text) == text and showable(text) == text


def test_a_control_character_beside_words_is_still_named() -> None:
    with pytest.raises(InvalidInput, match=r"control character \(U\+001B\)"):
        clean_text("a\x1b[31m")
