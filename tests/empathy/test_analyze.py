"""`analyze`: every line gets one answer, in order, whatever the line holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.dialogue import Turn
from empo_demo.empathy.analyze import CHUNK, analyze_records
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.plugins import GuardedSEM
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.empathy.sem import EmbeddedSEM


class WordLengths:
    """A SEM that offers `read` alone: the longest word is the cause."""

    name = "word-lengths"
    revision = "1"

    def read(self, turns: Sequence[Turn]) -> Reading:
        text = turns[-1].content
        word = max(text.split(), key=len)
        start = text.index(word)
        share = 1 / len(EMOTIONS)
        causes = (Cause(start, start + len(word), word, 1.0),)
        return Reading(tuple((label, share) for label in EMOTIONS), causes, "word-lengths@1", 0.0)


@pytest.fixture(scope="module")
def sem() -> EmbeddedSEM:
    return EmbeddedSEM()


def answers(sem: Any, records: Sequence[Any]) -> list[dict[str, Any]]:
    return list(analyze_records(sem, [json.dumps(record) for record in records]))


def test_a_text_is_answered_with_emotions_and_causes(sem: EmbeddedSEM) -> None:
    text = "  My bike was stolen from the garage.  "
    (answer,) = answers(sem, [{"text": text}])
    assert sum(e["probability"] for e in answer["emotions"]) == pytest.approx(1, abs=1e-6)
    assert len(answer["emotions"]) == 32
    assert answer["causes"]
    for cause in answer["causes"]:
        assert text.strip()[cause["start"] : cause["end"]] == cause["text"]


def test_tokens_are_answered_with_a_weight_each(sem: EmbeddedSEM) -> None:
    tokens = ["My", "bike", "was", "stolen", "."]
    (answer,) = answers(sem, [{"tokens": tokens}])
    assert len(answer["cause_weights"]) == 5
    assert "causes" not in answer


@pytest.mark.parametrize(
    "context", ["I lost my job.", [{"role": "user", "content": "I lost my job."}]]
)
def test_a_pair_is_answered_with_levels(sem: EmbeddedSEM, context: object) -> None:
    (answer,) = answers(sem, [{"context": context, "response": "Why did that happen?"}])
    assert set(answer["epitome"]) == {"er", "ip", "ex"}
    assert all(grade["level"] in (0, 1, 2) for grade in answer["epitome"].values())


def test_a_context_of_turns_means_its_last_user_turn(sem: EmbeddedSEM) -> None:
    turns = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "I lost my job."},
    ]
    # One at a time: rows of one batch may differ in the ninth digit.
    assert answers(sem, [{"context": turns, "response": "Oh."}]) == answers(
        sem, [{"context": "I lost my job.", "response": "Oh."}]
    )


def test_each_answer_says_whether_it_abstains_and_why(sem: EmbeddedSEM) -> None:
    foreign = "Mein Hund ist gestern gestorben."
    text, tokens, pair, read = answers(
        sem,
        [
            {"text": foreign},
            {"tokens": foreign.split()},
            {"context": foreign, "response": "Oh no."},
            {"text": "My dog died yesterday."},
        ],
    )
    for answer in (text, tokens, pair):
        assert answer["abstains"] is True and answer["unread"] == "language"
    assert text["causes"] == [] and "valence" not in text
    assert read["abstains"] is False and read["unread"] is None and "valence" in read


BAD = [
    "not json",
    "",
    "[1, 2]",
    "null",
    "{}",
    '{"text": 5}',
    '{"text": "   "}',
    '{"text": "a\\u0000b"}',
    '{"text": "\\ud800"}',
    '{"turns": []}',
    '{"turns": "hello"}',
    '{"turns": [{"role": "user"}]}',
    '{"turns": [{"role": "assistant", "content": "hi"}]}',
    '{"turns": [{"role": "system", "content": "hi"}]}',
    '{"tokens": []}',
    '{"tokens": ["a", 3]}',
    '{"tokens": "abc"}',
    '{"context": "a"}',
    '{"response": "a"}',
    '{"context": "a", "response": ""}',
    "[" * 100_000,
]


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_answered_with_one_line(sem: EmbeddedSEM, line: str) -> None:
    good = '{"text": "I am glad."}'
    before, answer, after = analyze_records(sem, [good, line, good])
    assert set(answer) == {"error"}
    assert answer["error"]
    assert "\n" not in answer["error"]
    assert [e["label"] for e in before["emotions"]] == [e["label"] for e in after["emotions"]]


def test_long_texts_are_cut_and_not_refused(sem: EmbeddedSEM) -> None:
    long = "The flood took our house and everything in it. " * 500
    texts, turns = answers(
        sem,
        [
            {"text": long},
            {"turns": [{"role": ("user", "assistant")[i % 2], "content": long} for i in range(61)]},
        ],
    )
    assert len(texts["emotions"]) == len(turns["emotions"]) == 32


def test_the_order_is_kept_over_more_lines_than_a_batch() -> None:
    texts = [f"word{'x' * (i % 7)} {i}" for i in range(CHUNK + 20)]
    found = answers(WordLengths(), [{"text": text} for text in texts])
    assert [answer["causes"][0]["text"] for answer in found] == [text.split()[0] for text in texts]


def test_answers_come_before_the_input_ends() -> None:
    def endless() -> Any:
        while True:
            yield '{"text": "again and again"}'

    stream = analyze_records(WordLengths(), endless())
    assert next(stream)["causes"]


def test_a_sem_with_read_alone_answers_tokens_too() -> None:
    (answer,) = answers(WordLengths(), [{"tokens": ["a", "stolen", "bike"]}])
    assert answer["cause_weights"] == [0.0, 1.0, 0.0]


def test_a_sem_without_epitome_says_so() -> None:
    pair, text = answers(
        WordLengths(), [{"context": "I fell.", "response": "Ouch."}, {"text": "I fell."}]
    )
    assert "does not grade replies" in pair["error"]
    assert "emotions" in text


def test_one_record_can_be_read_alone(sem: EmbeddedSEM) -> None:
    (read,) = analyze_records(sem, ['{"text": "I fell off my bike."}'])
    (refused,) = analyze_records(sem, ["{}"])
    assert read["causes"] and "none of text" in refused["error"]


def test_a_pipe_gets_the_cause_words_and_who_read_the_valence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipe shows no underlining."""
    monkeypatch.setattr("empo_demo.empathy.plugins.load_sem", lambda _: GuardedSEM(WordLengths()))
    shown = CliRunner().invoke(app, ["analyze", "The [b]thunderstorm[/b] was loud."]).stdout
    assert "unsure: perhaps" in shown
    assert "caused by: [b]thunderstorm[/b] 100%" in shown
    assert "(by the words, VADER: this SEM reads no valence)" in shown


def test_the_terminal_measures_what_each_word_adds_to_the_valence(
    sem: EmbeddedSEM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empo_demo.empathy.plugins.load_sem", lambda _: sem)
    text = "The exam went terribly."
    whole, without = sem.feelings([text, "The exam went ."])
    told = json.loads(CliRunner().invoke(app, ["analyze", text, "--json"]).stdout)
    by = {word["text"]: word["by"] for word in told["valence_words"]}
    assert by["terribly"] == pytest.approx(whole.valence - without.valence, abs=0.01)
