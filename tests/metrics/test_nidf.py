"""NIDF agrees with an independent computation, and keeps its bounds."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.errors import DataError
from empo_demo.metrics.lexical import nidf, nidf_table, read_counts, utterance_counts, write_counts

UTTERANCES = ["the dog barked", "the dog , the cat", "a cat", "the end"]
WORDS = st.lists(st.sampled_from(["the", "dog", "cat", "a", "zebra", "quark"]), max_size=10)


def by_hand(words: list[str]) -> float | None:
    """The formula written another way: inverse document frequencies, then normalised."""
    documents = [set(utterance.split()) for utterance in UTTERANCES]
    vocabulary = set().union(*documents)
    idf = {w: -np.log(sum(w in d for d in documents) / len(documents)) for w in vocabulary}
    low, high = min(idf.values()), max(idf.values())
    values = [(idf[w] - low) / (high - low) if w in idf else 1.0 for w in sorted(set(words))]
    return float(np.mean(values)) if values else None


TABLE = nidf_table(utterance_counts(UTTERANCES))


@given(WORDS)
def test_nidf_agrees_with_an_independent_computation(words: list[str]) -> None:
    value, expected = nidf(" ".join(words), TABLE), by_hand(words)
    assert value == (None if expected is None else pytest.approx(expected))


@given(WORDS, st.randoms())
def test_nidf_is_bounded_and_blind_to_order_and_repetition(
    words: list[str], draw: random.Random
) -> None:
    shuffled = words + words
    draw.shuffle(shuffled)
    value = nidf(" ".join(words), TABLE)
    assert value is None or 0 <= value <= 1
    assert nidf(" ".join(shuffled), TABLE) == pytest.approx(value)


def test_a_token_counts_once_per_utterance() -> None:
    assert utterance_counts(["ha ha ha", "ha"])["ha"] == 2


def test_the_commonest_token_is_zero_and_an_unknown_one_is_one() -> None:
    assert nidf("the", TABLE) == 0.0
    assert nidf("xyzzy", TABLE) == 1.0
    assert math.isclose(TABLE["dog"], (math.log(3) - math.log(2)) / math.log(3))


def test_an_empty_reply_has_no_nidf() -> None:
    assert nidf("", TABLE) is None


def test_counts_without_a_scale_are_all_zero_and_empty_ones_refused() -> None:
    assert nidf_table({"a": 2, "b": 2}) == {"a": 0.0, "b": 0.0}
    with pytest.raises(ValueError):
        nidf_table({})


def test_a_table_of_counts_survives_writing_and_reading(tmp_path: Path) -> None:
    file = tmp_path / "counts.tsv.gz"
    write_counts({"a": 1, "the": 7}, file)
    assert read_counts(file) == {"the": 7, "a": 1}


def test_counts_are_made_from_dialogues(tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl.gz"
    record = {"utterances": [{"content": "the dog"}, {"content": "the cat"}]}
    file.write_bytes(gzip.compress((json.dumps(record) + "\n").encode()))
    assert read_counts(file) == {"the": 2, "dog": 1, "cat": 1}


@pytest.mark.parametrize("content", ["", "word only\n", "word\t0\n", '{"no": "utterances"}\n'])
def test_a_file_that_is_neither_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "counts.tsv"
    file.write_text(content)
    with pytest.raises(DataError):
        read_counts(file)
