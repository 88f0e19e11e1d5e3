"""Valence: by the SEM's own head, by VADER where a SEM has none, stored, and explained by words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import TOLD_SPREAD, Feeling, Push, lexicon_feeling, told
from empo_demo.empathy.plugins import GuardedSEM
from empo_demo.empathy.reading import Reading, certainty
from empo_demo.empathy.sem import EmbeddedSEM, feelings
from empo_demo.errors import SEMFailure
from empo_demo.settings import ASSETS

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
        "The",
        "exam",
        "went",
        "terribly",
        "but",
        "my",
        "friends",
        "were",
        "wonderful",
    ]
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hi", "word"),
        ("?", "word"),
        ("Terrible!", "word"),
        ("asdf qwer zxcv", "letters"),
        ("Mein Hund ist gestern gestorben.", "language"),
        ("I am so bored, there is nothing to do.", "other"),
        ("What is the capital of France?", "other"),
    ],
)
def test_where_nothing_can_be_read_all_of_it_abstains(
    sem: EmbeddedSEM, text: str, why: str
) -> None:
    found = sem.read(user(text))
    assert found.unread == why
    assert found.certainty.kind == "unread"
    assert found.abstains
    assert found.marks == () and found.feeling is None and found.valence is None
    answer = found.as_json()
    assert answer["abstains"] and answer["unread"] and not answer["causes"]
    assert not [key for key in answer if key.startswith("valence")]
    assert Reading.from_json(answer).certainty == found.certainty


def ranked(*first: float) -> list[tuple[str, float]]:
    rest = (1 - sum(first)) / (len(EMOTIONS) - len(first))
    values = [*first, *[rest] * (len(EMOTIONS) - len(first))]
    return list(zip(EMOTIONS, values, strict=True))


@pytest.mark.parametrize(
    ("first", "words", "abstains"),
    [
        ((0.95,), "most likely afraid", False),
        ((0.45, 0.3), "perhaps afraid", False),
        ((0.35, 0.3), "unsure between afraid and angry", False),
        ((0.2, 0.1, 0.1), "unsure: perhaps afraid, angry or annoyed", False),
    ],
)
def test_certainty_is_said_in_words(first: tuple[float, ...], words: str, abstains: bool) -> None:
    found = certainty(ranked(*first))
    assert found.words == words
    assert found.abstains is abstains


def test_no_word_of_a_reading_says_that_it_is_sure() -> None:
    for language in ("en", "de"):
        texts = json.loads((ASSETS / "texts" / f"{language}.json").read_text(encoding="utf8"))
        said = [text for key, text in texts.items() if key.startswith(("certainty", "heard"))]
        assert len(said) > 8
        for text in said:
            assert not re.search(r"\b(sure|certain|sicher)\b", text, re.IGNORECASE), text


def test_a_reading_of_an_earlier_version_that_knew_too_little_abstains_wholly() -> None:
    old = reading(Feeling(0.3, 0.1, 0.0, "sem"), EMOTIONS[:16])
    assert old.abstains and old.valence is None
    assert old.as_json()["unread"] == "little" and "valence" not in old.as_json()


def test_a_plugin_may_say_that_it_reads_nothing() -> None:
    answer = Reading(reading().emotions, (), "fixed@1", unread="other")
    found = GuardedSEM(Fixed(answer)).read(user("What a wonderful day"))
    assert found.abstains and found.unread == "other" and found.feeling is None


def test_care_is_no_gloom_and_joy_at_a_loss_is_none() -> None:
    """What counts is how it makes one feel to be told this, not how a diary would sound."""
    loss, gladness = Feeling(-0.35, 0.1, 0.0, "sem"), Feeling(0.35, 0.1, 0.0, "sem")
    care = Feeling(-0.25, 0.1, 0.0, "sem", (Push(5, 10, "sorry", -0.2),))
    cheer = Feeling(0.4, 0.1, 0.0, "sem")
    assert told(care, loss).valence > told(cheer, loss).valence
    assert told(cheer, gladness).valence > told(care, gladness).valence
    assert told(care, loss).words[0].by > 0
    assert told(care, loss).spread == TOLD_SPREAD
    counted = lexicon_feeling("I am sorry.")
    assert told(counted, loss) == counted, "a word list's valence stays as it is"


TURNING = [
    (
        [
            "My sister took my car again without asking and I yelled at her.",
            "Oh no. Then what?",
            "I said awful things to her. I wish I could take them back.",
        ],
        {"guilty", "ashamed"},
    ),
    (
        [
            "I was so scared of the exam that I could not sleep.",
            "How did it go?",
            "I passed with the best mark of the whole class!",
        ],
        {"proud", "joyful", "excited", "impressed"},
    ),
    (
        [
            "We won the final and I was so happy.",
            "Congratulations!",
            "Then on the way home my grandfather died in a car crash.",
        ],
        {"devastated", "sad"},
    ),
    (
        [
            "My boss shouted at me in front of everybody, I was furious.",
            "That is awful.",
            "My colleagues bought me flowers afterwards. I am so thankful for them.",
        ],
        {"grateful"},
    ),
]


@pytest.mark.parametrize(("turns", "wanted"), TURNING)
def test_the_chip_follows_a_turn_that_parts_from_the_dialogue(
    sem: EmbeddedSEM, turns: list[str], wanted: set[str]
) -> None:
    roles = ("user", "assistant", "user")
    found = sem.read([Turn(r, text) for r, text in zip(roles, turns, strict=True)])  # type: ignore[arg-type]
    assert found.emotions[0][0] in wanted
    assert found.as_json()["of"] == found.of


def test_a_turn_that_goes_on_leaves_the_dialogues_emotion(sem: EmbeddedSEM) -> None:
    turns = [
        Turn("user", "My dog died last week and I miss him so much."),
        Turn("assistant", "I am so sorry. How old was he?"),
        Turn("user", "He was twelve. I still put out his bowl every morning."),
    ]
    found = sem.read(turns)
    assert found.of == "dialogue"
    assert found.emotions[0][0] in {"sad", "devastated", "sentimental", "nostalgic", "lonely"}
