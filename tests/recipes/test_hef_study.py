"""HEF's evaluation: fair conditions, paired figures, judges of its own, and resuming."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Message, Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request
from empo_demo.errors import DataError, EngineError, InvalidInput
from recipes.sem.folds import REPORTING, fold_of
from recipes.studies.hef import command
from recipes.studies.hef.effects import Judges, figures, perplexity, perplexity_ratio
from recipes.studies.hef.reply_judge import ReplyJudge, train_judge
from recipes.studies.hef.runner import (
    CONDITIONS,
    VALID,
    Answer,
    Case,
    Runner,
    fill,
    read_answers,
    read_cases,
    with_first,
)
from recipes.studies.hef.two_step import two_step

ROSTER = Roster(
    "tiny",
    (
        Contender("base", "m", revision="r1"),
        Contender("base+HEF", "m", strategy="hef", revision="r2"),
    ),
    tiny=True,
)
BASE = ROSTER["base"]
FELT = ("sad", "proud", "angry", "joyful")


class KeywordSEM:
    """Reads the first emotion that the text names; right about three dialogues of four."""

    name, revision = "keyword", "1"

    def read(self, turns: Sequence[Turn]) -> Reading:
        text = turns[-1].content
        top = next((e for e in EMOTIONS if e in text), "content")
        odds = {e: (0.69 if e == top else 0.01) for e in EMOTIONS}
        ranked = tuple(sorted(odds.items(), key=lambda pair: -pair[1]))
        return Reading(ranked, (Cause(0, 2, text[:2], 1.0),), "keyword@1", 0.0)

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        return [self.read(turns) for turns in dialogues]


class Obedient:
    """An engine whose replies and scores follow the guidance that it is given."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.requests += requests
        for request in requests:
            system = request.messages[0]["content"] if len(request.messages) > 1 else ""
            reply = system.replace("The user feels ", "You must be ").split(" because")[0]
            yield Delta(request.side, reply or "Oh.")
            yield Finished(request.side, "eos", reply or "Oh.", 3, 1.0)

    def describe(self) -> dict[str, str]:
        return {}

    def score(
        self, contender: str, pairs: Sequence[tuple[Sequence[Message], str]]
    ) -> list[tuple[float, int]]:
        found = []
        for messages, reply in pairs:
            told = messages[0]["role"] == "system"
            right = told and reply.rsplit(" ", 1)[-1].strip(".") in messages[0]["content"]
            found.append((-1.0 * 4 if right else -3.0 * 4, 4))
        return found


def records(count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(count):
        felt = FELT[number % 4]
        said = "content" if number % 16 == 3 else felt
        rows.append(
            {
                "conv_id": f"hit:{number}_conv:{number}",
                "emotion": felt,
                "situation": "x",
                "utterances": [
                    {"role": "user", "content": f"It was day {number} and I was {said} then"},
                    {"role": "assistant", "content": f"That must have been {felt}."},
                    {"role": "user", "content": "Yes."},
                ],
            }
        )
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in (VALID, "empathetic_dialogues.train.jsonl.gz"):
        text = "".join(json.dumps(row) + "\n" for row in records(240))
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    return tmp_path


@pytest.fixture
def cases(data: Path) -> list[Case]:
    return read_cases(data / VALID, 40, KeywordSEM().read_many, seed=1)


def test_only_dialogues_of_the_reporting_fold_are_used_and_the_seed_draws_them(
    data: Path, cases: list[Case]
) -> None:
    assert len(cases) == 40
    assert {fold_of(case.item.conv_id) for case in cases} == {REPORTING}
    again = read_cases(data / VALID, 40, KeywordSEM().read_many, seed=1)
    assert again == cases
    assert read_cases(data / VALID, 60, KeywordSEM().read_many, seed=1)[:40] == cases
    other = read_cases(data / VALID, 40, KeywordSEM().read_many, seed=2)
    assert [c.item.conv_id for c in other] != [c.item.conv_id for c in cases]


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        read_cases(tmp_path / VALID, 5, KeywordSEM().read_many, seed=0)


def test_the_upper_bound_puts_the_true_emotion_first_and_the_control_never(
    cases: list[Case],
) -> None:
    for case in cases:
        true, wrong, sem = (case.readings[c] for c in ("true", "shuffled", "sem"))
        assert true and wrong and sem and case.readings["none"] is None
        assert true.emotions[0][0] == case.emotion
        assert wrong.emotions[0][0] not in (case.emotion, sem.emotions[0][0])
        assert true.causes == wrong.causes == sem.causes
        for reading in (true, wrong):
            assert sorted(e for e, _ in reading.emotions) == sorted(EMOTIONS)
            assert sum(p for _, p in reading.emotions) == pytest.approx(1)


def test_with_first_keeps_a_reading_that_is_right_already(cases: list[Case]) -> None:
    reading = cases[0].readings["sem"]
    assert reading is not None
    top = reading.emotions[0][0]
    assert with_first(reading, top).emotions[0] == reading.emotions[0]


def answered(cases: Sequence[Case], engine: Obedient, contender: Contender = BASE) -> list[Answer]:
    runner = Runner(engine, ROSTER, "keyword@1", 0)
    return [one for condition in CONDITIONS for one in runner.answer(contender, condition, cases)]


def test_the_conditions_of_a_dialogue_differ_in_the_guidance_alone(cases: list[Case]) -> None:
    engine = Obedient()
    answered(cases[:1], engine)
    assert len({(r.seed, r.decoding, r.contender) for r in engine.requests}) == 1
    assert len({r.messages[-1]["content"] for r in engine.requests}) == 1
    systems = [[m for m in r.messages if m["role"] == "system"] for r in engine.requests]
    assert systems[0] == [] and all(len(system) == 1 for system in systems[1:])


def test_guidance_that_is_followed_shows_and_a_wrong_one_does_not_help(
    data: Path, cases: list[Case]
) -> None:
    judges = Judges(train_judge(data / "empathetic_dialogues.train.jsonl.gz"))
    answers = answered(cases, Obedient())
    rows = {c: [a for a in answers if a.condition == c] for c in CONDITIONS}
    found = figures(cases, rows, judges, seed=0)
    assert found["true"]["emotion_match"]["mean"] == 1.0
    assert found["shuffled"]["emotion_match"]["mean"] < 0.5
    sem = found["sem"]["against_none"]
    assert sem["emotion_probability"]["interval"][0] > 0
    assert sem["perplexity"]["ratio"] < 1 and sem["perplexity"]["interval"][1] < 1
    assert found["true"]["perplexity"]["value"] == pytest.approx(math.e)
    assert found["none"]["perplexity"]["value"] == pytest.approx(math.e**3)
    assert found["shuffled"]["against_none"]["perplexity"]["ratio"] == pytest.approx(1)


def test_perplexity_weighs_tokens_and_is_none_where_the_engine_cannot_score() -> None:
    short = Answer("base", "r", "none", "1", 0, "x", -2.0, 1, "s")
    long = Answer("base", "r", "none", "2", 0, "x", -4.0, 7, "s")
    value = perplexity([short, long], 0)
    assert value is not None and value["value"] == pytest.approx(math.exp(6 / 8))
    blind = replace(short, log_p=None, tokens=0)
    assert perplexity([blind, long], 0) is None
    assert perplexity_ratio([short, long], [blind, long], 0) is None
    ratio = perplexity_ratio([short, long], [short, long], 0)
    assert ratio is not None and ratio["ratio"] == 1 and ratio["interval"] == (1, 1)


def test_the_judge_learns_from_listeners_turns_and_knows_when_it_knows_nothing(
    data: Path,
) -> None:
    judge = train_judge(data / "empathetic_dialogues.train.jsonl.gz")
    assert isinstance(judge, ReplyJudge)
    rows = judge.probabilities(["Oh, how sad.", "zzz", ""])
    assert EMOTIONS[int(rows[0].argmax())] == "sad"
    assert rows[1] == pytest.approx(1 / 32) and rows[2] == pytest.approx(1 / 32)
    assert rows.sum(axis=1) == pytest.approx(1)
    assert "then" not in judge.vocabulary, "speakers' turns are not the judge's to read"


def test_a_bad_training_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"emotion": "sad"}\n')
    with pytest.raises(DataError, match="line 1"):
        train_judge(tmp_path / "x.jsonl")


def test_a_killed_run_goes_on_where_it_stopped(cases: list[Case], tmp_path: Path) -> None:
    work = tmp_path / "work.jsonl"

    def run(engine: Obedient, some: Sequence[Case]) -> None:
        fill(Runner(engine, ROSTER, "k", 0), [BASE], some, work, batch=4)

    run(Obedient(), cases[:10])
    with work.open("a") as file:
        file.write('{"contender": "base", "revi')
    engine = Obedient()
    run(engine, cases)
    assert len(engine.requests) == 30 * len(CONDITIONS)
    assert len(read_answers(work)) == 40 * len(CONDITIONS)
    engine = Obedient()
    run(engine, cases)
    assert engine.requests == []


def test_a_foreign_work_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_text('{"text": "hi"}\n')
    with pytest.raises(DataError, match="line 1: this is not a work file"):
        read_answers(tmp_path / "w")


def test_a_failed_side_is_an_error_that_names_the_dialogue(cases: list[Case]) -> None:
    class Broken(Obedient):
        def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
            yield from (Failed(request.side, "out of memory") for request in requests)

    with pytest.raises(EngineError, match=r"base failed on hit:\S+: out of memory"):
        Runner(Broken(), ROSTER, "s", 0).answer(BASE, "none", cases[:2])


def test_only_contenders_without_guidance_are_measured() -> None:
    assert command.chosen_contenders(ROSTER, []) == [BASE]
    with pytest.raises(InvalidInput, match="carries guidance already"):
        command.chosen_contenders(ROSTER, ["base+HEF"])


def test_the_summary_is_json_with_every_condition_and_the_human_beside(
    data: Path, cases: list[Case]
) -> None:
    answers = {a.key: a for a in answered(cases, Obedient())}
    judges = Judges(
        train_judge(data / "empathetic_dialogues.train.jsonl.gz"),
        levels=lambda pairs: [{"er": 1, "ip": 0, "ex": len(reply) % 3} for _, reply in pairs],
        bertscore=lambda replies, gold: [float(r == g) for r, g in zip(replies, gold, strict=True)],
        bertscore_label="equality",
        bertscore_key="bertscore_other",
    )
    result = command.summary(ROSTER, [BASE], cases, answers, judges, sem=KeywordSEM(), seed=0)
    result = json.loads(json.dumps(result))
    assert list(result["contenders"]["base"]["conditions"]) == list(CONDITIONS)
    conditions = result["contenders"]["base"]["conditions"].values()
    assert all("bertscore_other" in one and "bertscore" not in one for one in conditions)
    assert result["human"]["emotion_match"] == 1.0
    assert not [name for name in result["human"] if name.startswith("bertscore")]
    assert 0.8 < result["sem"]["top_1"] < 1
    console = Console(record=True, width=200, file=io.StringIO())
    command.print_table(result, console)
    text = console.export_text()
    assert "shuffled" in text and "P(emotion)" in text and "*" in text
    assert "BERTScore (other)" in text and "MiniLM" not in text


# --- Two steps --------------------------------------------------------------------------------


class Thinker(Obedient):
    """A chat model: with candidates it takes the first, alone it always says `sad`."""

    def __init__(self, fluent: bool = True) -> None:
        super().__init__()
        self.fluent = fluent

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        for request in requests:
            task = request.messages[0]["content"].rsplit("\n\n", 1)[-1]
            guided = "in this order: " in task
            first = task.split("in this order: ")[1].split(",")[0] if guided else "sad"
            text = json.dumps({"emotion": first, "cause": ["day"]}) if self.fluent else "I see."
            yield Finished(request.side, "eos", text, 9, 1.0)


def test_two_steps_are_compared_with_the_sem_alone_and_the_model_alone(cases: list[Case]) -> None:
    found = two_step(Thinker(), BASE, cases, ROSTER)
    sad = sum(case.emotion == "sad" for case in cases) / len(cases)
    assert found["model_alone"]["accuracy"] == pytest.approx(sad)
    assert found["together"]["accuracy"] == found["sem_alone"]["accuracy"] > 0.8
    assert found["readable"] == 1 and found["measurable"]
    assert "not measurable" not in command.two_step_line("base", found)


def test_a_model_that_cannot_answer_the_first_step_is_called_not_measurable(
    cases: list[Case],
) -> None:
    found = two_step(Thinker(fluent=False), BASE, cases, ROSTER)
    assert found["readable"] == 0 and not found["measurable"]
    assert found["model_alone"]["accuracy"] == 0
    assert found["together"] == found["sem_alone"], "the arena falls back to the SEM"
    assert "not measurable" in command.two_step_line("base", found)


@pytest.mark.slow
def test_the_judge_beats_chance_on_human_replies(data_dir: Path) -> None:
    judge = train_judge(data_dir / "empathetic_dialogues.train.jsonl.gz")
    cases = read_cases(data_dir / VALID, 300, KeywordSEM().read_many, seed=0)
    rows = judge.probabilities([case.item.reference for case in cases])
    hits = [EMOTIONS[int(row.argmax())] == c.emotion for row, c in zip(rows, cases, strict=True)]
    assert sum(hits) / len(hits) > 3 / 32
