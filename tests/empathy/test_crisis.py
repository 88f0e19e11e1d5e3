"""How well the patterns notice a crisis, in sentences that were not written by who tunes them.

`tests/data/crisis_sentences.jsonl` has two halves. The patterns were tuned on `tune`; nobody who
tunes reads `test`, which is kept for the one measurement of a finished detection.
"""

from __future__ import annotations

import json

import pytest

from empo_demo.empathy.safety import crisis_in
from tests.conftest import REPOSITORY

ROWS = [
    json.loads(line)
    for line in (REPOSITORY / "tests" / "data" / "crisis_sentences.jsonl")
    .read_text(encoding="utf8")
    .splitlines()
]


def test_the_sentences_are_as_many_and_as_mixed_as_they_must_be() -> None:
    assert len({row["text"] for row in ROWS}) == len(ROWS) == 400
    assert sum(row["lang"] == "de" for row in ROWS) >= 60
    assert sum(row["crisis"] for row in ROWS) == 200
    assert sum(row["half"] == "test" for row in ROWS) == 200


def test_the_known_probes() -> None:
    fear = "I have heart surgery on Monday and I am so scared that I will not wake up"
    assert crisis_in([fear]) == ()
    assert crisis_in([f"{fear}. I want to kill myself."]), "what is spared hides nothing else"
    assert crisis_in(["Mein Sohn will nicht in die Schule."]) == (), "no English verb"
    assert crisis_in(["I am standing on the bridge and nobody would care"]) == ("self-harm",)


@pytest.mark.parametrize("language", ["en", "de"])
def test_what_the_tuning_half_taught_is_not_unlearnt(language: str) -> None:
    """No measurement: the patterns have seen these sentences. Before they did, they found 32 of
    75 English and 2 of 25 German ones, with 14 and 2 false alarms."""
    tune = [row for row in ROWS if row["half"] == "tune" and row["lang"] == language]
    for crisis, least, most in ((True, 0.88, 1.0), (False, 0.0, 0.10)):
        texts = [row["text"] for row in tune if row["crisis"] is crisis]
        rate = sum(bool(crisis_in([text])) for text in texts) / len(texts)
        assert least <= rate <= most, (crisis, rate)
