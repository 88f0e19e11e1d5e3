"""Text appears whole: no half character, no beginning of a stop string."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from empo_demo.engine.lockstep.row import Detokenizer
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.text.marks import spoken

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(str(tiny_folder))


def pieces(tokenizer: Any, text: str, *stop: str) -> tuple[list[str], Detokenizer]:
    """What is released token by token, and at the end."""
    detokenizer = Detokenizer(tokenizer, stop)
    released = []
    for token in tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
        released.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return [*released, detokenizer.flush()], detokenizer


@pytest.mark.parametrize(
    "text", ["誰も来なかった 😢", "👩‍👩‍👧 and  two  spaces", "naïve — “quoted”", "🏳️‍🌈\n\nnew line"]
)
def test_characters_of_several_tokens_appear_whole(tokenizer: Any, text: str) -> None:
    released, detokenizer = pieces(tokenizer, text)
    assert "".join(released) == detokenizer.text == text
    assert not any("\ufffd" in piece for piece in released)
    assert len([piece for piece in released if piece]) > 1


@RELAXED
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_any_text_comes_out_as_it_went_in(tokenizer: Any, text: str) -> None:
    assume(spoken(text) == text.strip())  # a mark of a thought is left out
    released, _ = pieces(tokenizer, text)
    assert "".join(released) == text.lstrip().rstrip("\ufffd")


@RELAXED
@given(text=st.text("ab<|user>", min_size=1, max_size=30))
def test_no_part_of_a_stop_string_is_ever_shown(tokenizer: Any, text: str) -> None:
    stop = "<|user|>"
    released, detokenizer = pieces(tokenizer, text + stop + " more", stop)
    expected = (text + stop).partition(stop)[0]
    shown = ""
    for piece in released:
        shown += piece
        assert expected.startswith(shown)
    assert shown == expected and detokenizer.stopped


def test_a_beginning_that_becomes_no_stop_string_is_shown_after_all(tokenizer: Any) -> None:
    released, _ = pieces(tokenizer, "a <|use it", "<|user|>")
    assert "".join(released) == "a <|use it"


def test_half_a_character_at_the_end_is_left_out(tokenizer: Any) -> None:
    ids = tokenizer("ok 😢", add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(tokenizer)
    shown = "".join(detokenizer.push(token) for token in ids[:-1]) + detokenizer.flush()
    assert shown.strip() == "ok"


def test_a_tag_written_as_plain_text_is_shown_as_text(tokenizer: Any) -> None:
    plain = tokenizer("<|assistant|>", add_special_tokens=False, split_special_tokens=True)
    detokenizer = Detokenizer(tokenizer)
    shown = "".join(detokenizer.push(token) for token in plain["input_ids"]) + detokenizer.flush()
    assert shown == "<|assistant|>"
