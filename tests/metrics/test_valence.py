"""Valence, arousal and dominance: the paper's definition on a small lexicon of our own."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.errors import DataError
from empo_demo.metrics.valence import (
    Lexicon,
    Vad,
    difference,
    load_lexicon,
    text_vad,
    text_valence,
)

SMALL = {
    "happy": (0.96, 0.73, 0.85),
    "sad": (0.05, 0.29, 0.16),
    "dog": (0.68, 0.45, 0.40),
    "alone": (0.15, 0.30, 0.25),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Lexicon:
    file = tmp_path_factory.mktemp("lexicon") / "small.txt"
    file.write_text("".join(f"{w}\t{v}\t{a}\t{d}\n" for w, (v, a, d) in SMALL.items()))
    return load_lexicon(file)


def by_hand(tokens: list[str]) -> tuple[list[float], list[float]]:
    """Maximum and mean written another way: a matrix by columns, no shared helper."""
    maxima, means = [], []
    for column in range(3):
        values = [SMALL[token][column] if token in SMALL else 0.0 for token in tokens]
        maxima.append(max(values, default=0.0))
        means.append(math.fsum(values) / len(values) if values else 0.0)
    return maxima, means


WORDS = st.lists(st.sampled_from([*SMALL, "the", "of", "xyzzy"]), max_size=12)


@given(words=WORDS)
def test_maximum_and_mean_agree_with_an_independent_count(small: Lexicon, words: list[str]) -> None:
    vad = text_vad(" ".join(words), small)
    maxima, means = by_hand(words)
    assert list(vad.max) == pytest.approx(maxima)
    assert list(vad.mean) == pytest.approx(means)


@given(words=WORDS, draw=st.randoms())
def test_values_are_bounded_and_blind_to_word_order(
    small: Lexicon, words: list[str], draw: random.Random
) -> None:
    shuffled = words[:]
    draw.shuffle(shuffled)
    one, other = text_vad(" ".join(words), small), text_vad(" ".join(shuffled), small)
    assert one.max == other.max
    assert list(one.mean) == pytest.approx(list(other.mean))
    assert all(value is not None and 0 <= value <= 1 for value in (*one.max, *one.mean))
    assert -1 <= text_valence(" ".join(words), small) <= 1


def test_punctuation_and_unknown_words_count_as_zero_in_the_mean(small: Lexicon) -> None:
    vad = text_vad("Happy dog!", small)
    assert vad.max == Vad(0.96, 0.73, 0.85)
    assert vad.mean.v == pytest.approx((0.96 + 0.68) / 3)


def test_a_full_stop_inside_the_text_does_not_stick_to_its_word(small: Lexicon) -> None:
    assert text_vad("I was sad. Now I am not.", small).max.v == 0.05


def test_an_empty_text_is_zero(small: Lexicon) -> None:
    assert text_vad("", small).max == Vad(0.0, 0.0, 0.0)
    assert text_valence("", small) == 0.0
    assert text_valence("xyzzy", small) == 0.0


def test_the_difference_is_the_users_turn_minus_the_response(small: Lexicon) -> None:
    gap = difference(text_vad("so happy", small).max, text_vad("a dog", small).max)
    assert gap.v == pytest.approx(0.28)


def test_the_default_needs_no_file_and_has_no_arousal() -> None:
    default = load_lexicon(None)
    assert default.name == "vader"
    vad = text_vad("What a wonderful day", default)
    assert vad.max.v is not None and vad.max.v > 0.5
    assert vad.max.a is None and vad.max.d is None
    assert difference(vad.max, vad.max) == Vad(0.0, None, None)


def test_the_default_valence_of_a_text_knows_negation() -> None:
    default = load_lexicon(None)
    assert text_valence("I am happy", default) > 0.3
    assert text_valence("I am not happy", default) < 0
    assert text_valence("the of and", default) == 0.0


def test_a_header_line_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "v2.txt"
    file.write_text("term\tvalence\tarousal\tdominance\nsad\t0.05\t0.29\t0.16\n")
    assert dict(load_lexicon(file).values) == {"sad": (0.05, 0.29, 0.16)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sad\t0.05\t0.29\n", "line 1, has 3 columns"),
        ("sad,0.05,0.29,0.16\n", "columns sad,0.05"),
        ("sad\t0.05\t0.29\t0.16\ndog\t0.6\t1.7\t0.4\n", "line 2, holds '0.6, 1.7, 0.4'"),
        ("sad\t0.05\t0.29\t0.16\ndog\t0.6\tnan\t0.4\n", "line 2"),
        ("word\tarousal\tvalence\tdominance\nsad\t1\t1\t1\n", "arousal, valence"),
        ("", "holds no word"),
    ],
)
def test_wrong_columns_are_one_clear_error(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text(content)
    with pytest.raises(DataError) as error:
        load_lexicon(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lexicon_that_is_no_text_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "wrong.bin"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not a readable UTF-8 text"):
        load_lexicon(file)
    with pytest.raises(DataError, match="cannot be read"):
        load_lexicon(tmp_path / "absent")
