"""A dialogue that exists is valid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.dialogue import MAX_TURNS, Dialogue, Turn, clean_text
from empo_demo.errors import InvalidInput


def test_a_dialogue_must_start_with_the_user() -> None:
    with pytest.raises(InvalidInput, match=r"Turn 1 .* the user's"):
        Dialogue((Turn("assistant", "Hello"),))


def test_two_turns_of_the_same_role_are_refused() -> None:
    with pytest.raises(InvalidInput, match="alternate"):
        Dialogue((Turn("user", "Hello"), Turn("user", "Anyone?")))


@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
def test_an_empty_turn_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        Turn("user", text)


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31mb", "a\x7fb"])
def test_control_characters_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"control character \(U\+00"):
        Turn("user", text)


def test_emoji_joiners_and_right_to_left_text_are_kept() -> None:
    text = "👨‍👩‍👧 مرحبا\u200f ok"
    assert clean_text(text) == text


def test_a_text_over_the_limit_says_how_long_it_is_and_may_be() -> None:
    with pytest.raises(InvalidInput, match=r"2,001 characters; at most 2,000"):
        clean_text("x" * 2001, limit=2000)


def test_a_dialogue_over_the_limit_is_refused() -> None:
    messages = [
        {"role": "user" if i % 2 == 0 else "assistant", "content": "so"}
        for i in range(MAX_TURNS + 1)
    ]
    with pytest.raises(InvalidInput, match=f"at most {MAX_TURNS}"):
        Dialogue.from_messages(messages)


@pytest.mark.parametrize(
    "message", [None, 3, {"role": "user"}, {"role": "user", "content": ["x"]}, {"content": "x"}]
)
def test_what_is_no_message_is_refused_in_one_line(message: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Dialogue.from_messages([message])  # type: ignore[list-item]
    assert "\n" not in str(caught.value)


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), max_size=8))
def test_messages_round_trip(texts: list[str]) -> None:
    dialogue = Dialogue()
    for position, text in enumerate(texts):
        dialogue = dialogue.plus("user" if position % 2 == 0 else "assistant", text)
    assert Dialogue.from_messages(dialogue.messages()) == dialogue
    assert dialogue.messages("Be kind.")[1:] == dialogue.messages()
