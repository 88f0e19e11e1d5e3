"""Valence: by the SEM's own head, by VADER where a SEM has none, stored, and explained by words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.certainty import certainty
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling, Push, lexicon_feeling
from empo_demo.empathy.guarded import Guarded
from empo_demo.empathy.reading import Reading
from empo_demo.empathy.sem import EmbeddedSEM, feelings
from empo_demo.errors import SEMFailure

EMPTY_FLAT = "My best friend moved to another country last week and the flat feels so empty"


@pytest.fixture(scope="module")
def sem() -> EmbeddedSEM:
    return EmbeddedSEM()


def user(text: str) -> list[Turn]:
    return [Turn("user", text)]


def reading(feeling: Feeling | None = None, likely: tuple[str, ...] = ()) -> Reading:
    share = 1 / len(EMOTIONS)
    emotions = tuple((label, share) for label in EMOTIONS)
    return Reading(emotions, (), "fixed@1", 0.0, feeling, likely)


class Fixed:
    """A plugin that offers `read` alone."""

    name, revision = "fixed", "1"

    def __init__(self, answer: Reading) -> None:
        self.answer = answer

    def read(self, turns: Sequence[Turn]) -> Reading:
        return self.answer


def test_a_loss_without_a_sad_word_feels_bad_although_vader_likes_it(sem: EmbeddedSEM) -> None:
    valence = sem.read(user(EMPTY_FLAT)).valence
    assert valence is not None
    assert valence < -0.1
    assert lexicon_feeling(EMPTY_FLAT).valence > 0.5


def test_good_news_feels_better_than_bad_news(sem: EmbeddedSEM) -> None:
    good, bad, neutral = (
        found.valence
        for found in sem.feelings(
            ["I won the competition, I am so happy!", "My dog died.", "The bus stops at nine."]
        )
    )
    assert bad < -0.1 < neutral < good


def test_the_feeling_has_a_spread_and_a_push_for_every_word(sem: EmbeddedSEM) -> None:
    text = "The exam went terribly, but my friends were wonderful."
    feeling = sem.read(user(text)).feeling
    assert feeling is not None
    assert feeling.source == "sem"
    assert feeling.spread is not None
    assert 0.02 < feeling.spread < 0.5
    assert [word.text for word in feeling.words] == [
        "The", "exam", "went", "terribly", "but", "my", "friends", "were", "wonderful",
    ]  # fmt: skip
    by = {word.text: word.by for word in feeling.words}
    assert min(by, key=by.__getitem__) == "terribly"
    assert max(by, key=by.__getitem__) == "wonderful"
    assert all(text[w.start : w.end] == w.text for w in feeling.words)


def test_the_valence_is_of_the_last_user_turn(sem: EmbeddedSEM) -> None:
    turns = [
        Turn("user", "My grandmother died last week."),
        Turn("assistant", "I am so sorry."),
        Turn("user", "Thank you! The good news is that I got the wonderful new job."),
    ]
    found = sem.read(turns)
    first = sem.read(turns[:1])
    assert found.valence is not None
    assert first.valence is not None
    assert found.valence > first.valence + 0.1
    assert found.feeling is not None
    assert all(turns[2].content[w.start : w.end] == w.text for w in found.feeling.words)


def test_an_empty_text_is_neutral(sem: EmbeddedSEM) -> None:
    assert sem.feelings([""]) == [Feeling(0.0, None, None, "sem")]
    assert lexicon_feeling("").valence == 0


def test_a_reading_with_its_feeling_survives_being_stored(sem: EmbeddedSEM) -> None:
    found = sem.read(user(EMPTY_FLAT))
    data = json.loads(json.dumps({**found.as_json(), "sem": found.sem}))
    again = Reading.from_json(data)
    assert again.feeling == found.feeling
    assert again.likely == found.likely
    assert again.certainty == found.certainty
    assert data["valence"] == found.valence
    assert data["valence_source"] == "sem"


def test_a_reading_of_an_earlier_version_has_no_feeling() -> None:
    old = {"emotions": [{"label": label, "probability": 1 / 32} for label in EMOTIONS]}
    found = Reading.from_json({**old, "causes": []})
    assert found.feeling is None
    assert found.valence is None
    assert found.likely == ()


def test_a_plugin_without_valence_is_read_by_vader_and_says_so() -> None:
    guarded = Guarded(Fixed(reading()))
    found = guarded.read(user("What a wonderful day")).feeling
    assert found is not None
    assert found.source == "vader"
    assert found.valence > 0.3
    assert found.spread is None
    assert {word.text: word.by > 0.3 for word in found.words}["wonderful"]
    assert guarded.feelings(["What a wonderful day"]) == [found]
    assert feelings(None, ["What a wonderful day"]) == [found]


def test_a_plugin_with_valence_keeps_its_own() -> None:
    own = Feeling(0.4, 0.1, None, "sem", (Push(0, 4, "What", 0.1),))
    assert Guarded(Fixed(reading(own))).read(user("What a day")).feeling == own


@pytest.mark.parametrize(
    "feeling",
    [
        Feeling(1.5, None, None, "sem"),
        Feeling(float("nan"), None, None, "sem"),
        Feeling(0.1, None, None, "sem", (Push(0, 99, "What", 0.1),)),
        "evil",
    ],
)
def test_a_plugin_with_a_bad_valence_is_refused(feeling: Feeling) -> None:
    with pytest.raises(SEMFailure):
        Guarded(Fixed(reading(feeling))).read(user("What a day"))


def test_the_likely_labels_come_first_and_hold_the_first(sem: EmbeddedSEM) -> None:
    found = sem.read(user("I was so scared of the dark cellar."))
    assert found.likely == tuple(label for label, _ in found.emotions[: len(found.likely)])
    assert 1 <= len(found.likely) < 16


def ranked(*first: float) -> list[tuple[str, float]]:
    rest = (1 - sum(first)) / (len(EMOTIONS) - len(first))
    values = [*first, *[rest] * (len(EMOTIONS) - len(first))]
    return list(zip(EMOTIONS, values, strict=True))


@pytest.mark.parametrize(
    ("first", "words", "abstains"),
    [
        ((0.8,), "afraid, sure", False),
        ((0.45, 0.3), "afraid, fairly sure", False),
        ((0.35, 0.3), "unsure between afraid and angry", False),
        ((0.2, 0.1, 0.1), "unsure: perhaps afraid, angry or annoyed", True),
    ],
)
def test_certainty_is_said_in_words(first: tuple[float, ...], words: str, abstains: bool) -> None:
    found = certainty(ranked(*first))
    assert found.words == words
    assert found.abstains is abstains
