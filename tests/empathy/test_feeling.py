"""Valence: by the SEM's own head, by VADER where a SEM has none, stored, and explained by words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling, Push, lexicon_feeling
from empo_demo.empathy.plugins import GuardedSEM
from empo_demo.empathy.reading import Reading, certainty
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


def test_what_was_said_before_does_not_drown_the_valence_of_the_last_turn(
    sem: EmbeddedSEM,
) -> None:
    """On EmoBank's sentences, r fell from .73 to .40 when a dialogue about something else came
    before them."""
    before = [
        Turn("user", "I failed my driving test for the third time."),
        Turn("assistant", "Oh no, I am sorry. What happened?"),
    ]
    turn = "They just called: I passed after all, I am so happy!"
    together, alone = sem.read_many([[*before, Turn("user", turn)], user(turn)])
    assert together.feeling is not None
    assert alone.valence is not None
    assert alone.valence > 0
    assert together.feeling.valence == pytest.approx(alone.valence, abs=0.02)
    assert [w.text for w in together.feeling.words][:3] == ["They", "just", "called"]
    assert together.emotions != alone.emotions


def test_explained_words_lose_what_the_valence_loses_without_them(sem: EmbeddedSEM) -> None:
    text = "I am not happy with the terrible food."
    told, plain = sem.explained([text])[0], sem.feelings([text])[0]
    assert told.valence == plain.valence
    by = {word.text: word.by for word in told.words}
    assert list(by) == ["I", "am", "not", "happy", "with", "the", "terrible", "food"]
    without = sem.feelings([text.replace("terrible", ""), text.replace("not", "")])
    assert by["terrible"] == pytest.approx(told.valence - without[0].valence, abs=0.01)
    assert by["not"] == pytest.approx(told.valence - without[1].valence, abs=0.01)
    assert min(by, key=by.__getitem__) in ("not", "terrible")
    assert by["the"] == 0  # It tells nothing, so it is not left out.
    assert feelings(sem, [text], explained=True) == [told]
    assert sem.explained([]) == []


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
    guarded = GuardedSEM(Fixed(reading()))
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
    assert GuardedSEM(Fixed(reading(own))).read(user("What a day")).feeling == own


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
        GuardedSEM(Fixed(reading(feeling))).read(user("What a day"))


def test_the_likely_labels_come_first_and_hold_the_first(sem: EmbeddedSEM) -> None:
    found = sem.read(user("I was so scared of the dark cellar."))
    assert found.likely == tuple(label for label, _ in found.emotions[: len(found.likely)])
    assert 1 <= len(found.likely) < 16


@pytest.mark.parametrize("text", ["hi", "asdf qwer zxcv", "Mein Hund ist gestern gestorben.", "?"])
def test_where_half_of_all_emotions_are_likely_none_is_named(sem: EmbeddedSEM, text: str) -> None:
    found = sem.read(user(text))
    assert len(found.likely) >= 16
    assert found.certainty.kind == "unread"
    assert found.certainty.abstains
    assert found.certainty.words == "too little to tell the emotion by"
    assert found.marks == ()
    assert Reading.from_json(found.as_json()).certainty == found.certainty


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
