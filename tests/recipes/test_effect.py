"""The effect of alignment: cases, the judge, blind labels, tells, embeddings, probes."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empo_demo.engine.protocol import Finished
from empo_demo.errors import DataError
from empo_demo.evaluation.results import HUMAN, ResultsData
from recipes.effect import blind, card, measured, probes, tells
from recipes.effect.cases import CHOOSING, REPORT, TRAIN, VALID, Case, draw, read_cases
from recipes.effect.embeddings import Embeddings
from recipes.effect.judge import Judge, fit, opposite_replies, threshold
from recipes.effect.table import predictions, put_studies
from recipes.sem.folds import fold_of

NEWS = {"proud": "I won the race and got a medal", "sad": "My dog died and I cried all day"}
SAID = {"proud": "That is great, congratulations!", "sad": "I am so sorry for your loss."}
NEUTRAL = "When was that?"


def records(count: int, odd: int = 0) -> list[dict[str, Any]]:
    """Dialogues of good and bad news; the last `odd` ones have the label of the other kind."""
    rows = []
    for number in range(count):
        told = ("proud", "sad")[number % 2]
        other = ("sad", "proud")[number % 2]
        rows.append(
            {
                "conv_id": f"hit:{number}_conv:{number}",
                "emotion": other if number >= count - odd else told,
                "utterances": [
                    {"role": "user", "content": f"{NEWS[told]}_comma_ on day {number}."},
                    {"role": "assistant", "content": SAID[told] if number // 2 % 2 else NEUTRAL},
                    {"role": "user", "content": "Yes, that was it."},
                    {"role": "assistant", "content": SAID[told]},
                ],
            }
        )
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def embed(texts: Sequence[str]) -> Any:
    """Two numbers a text: what a sentence encoder would know of it."""
    return np.array([["great" in text, "sorry" in text] for text in texts], np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / TRAIN, records(300))
    write(folder / VALID, records(240, odd=40))
    return folder


@pytest.fixture(scope="module")
def judge(data: Path) -> Judge:
    return fit(data, embed, learnt=200)


def test_the_first_two_listeners_turns_are_cases_and_share_their_dialogue(data: Path) -> None:
    cases = read_cases(data / VALID, REPORT)
    assert {fold_of(case.conv_id) for case in cases} == set(REPORT)
    assert [case.turn for case in cases[:4]] == [1, 2, 1, 2]
    first, second = cases[:2]
    assert first.conv_id == second.conv_id and first.item.conv_id != second.item.conv_id
    assert len(first.item.context.turns) == 1 and len(second.item.context.turns) == 3
    assert "," in first.item.context.turns[0].content
    choosing = read_cases(data / VALID, CHOOSING)
    assert not {c.conv_id for c in cases} & {c.conv_id for c in choosing}


def test_more_dialogues_include_those_of_fewer_and_stay_whole(data: Path) -> None:
    cases = read_cases(data / VALID)
    few, more = draw(cases, 20), draw(cases, 40)
    assert more[: len(few)] == few and len(few) == 40
    assert [case.turn for case in few] == [1, 2] * 20


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        read_cases(tmp_path / VALID)


def test_people_pass_and_the_opposite_fails(data: Path, judge: Judge) -> None:
    shares = measured.on_people(judge, read_cases(data / VALID, REPORT))
    own, other = shares["people"], shares["people, of the opposite"]
    assert own["right"].value > 0.7 and own["opposite"].value < 0.1
    assert other["opposite"].value > 0.5 and other["right"].value < 0.2
    assert own["right"].low < own["right"].value < own["right"].high


def test_cases_whose_label_says_nothing_are_not_judged(data: Path, judge: Judge) -> None:
    cases = read_cases(data / VALID)
    mislabelled = {f"hit:{number}_conv:{number}" for number in range(200, 240)}
    clear = judge.clear(cases)
    assert not any(c for case, c in zip(cases, clear, strict=True) if case.conv_id in mislabelled)
    assert sum(clear) > 0.9 * (len(cases) - 80)


def test_a_reply_without_a_feeling_is_unsure(data: Path, judge: Judge) -> None:
    cases = read_cases(data / VALID)[:4]
    assert judge.least > 0
    assert judge.verdicts(cases, [NEUTRAL] * 4) == ["unsure"] * 4


def test_the_threshold_is_the_lowest_one_that_is_right_often_enough() -> None:
    sure = np.array([3.0, 2.0, 1.0, 0.5])
    assert threshold(sure, np.array([True, True, True, False]), 0.9) == 1.0
    assert threshold(sure, np.array([True, True, True, True]), 0.9) == 0.5
    assert threshold(sure, np.array([False, False, False, False]), 0.9) == 3.0
    tied = np.array([3.0, 1.0, 1.0, 1.0])
    assert threshold(tied, np.array([True, True, False, False]), 0.9) == 3.0


def test_opposite_replies_are_of_the_same_turn(data: Path) -> None:
    cases = read_cases(data / VALID)[:200]
    for case, reply in zip(cases, opposite_replies(cases), strict=True):
        assert reply in (NEUTRAL, SAID["sad" if case.good else "proud"])


@pytest.fixture
def labelled(tmp_path: Path, data: Path) -> tuple[Path, list[tuple[Case, str]]]:
    chosen = blind.choose(read_cases(data / VALID), ("base", "sft", "aligned"), 30)
    replies = [SAID["proud" if case.good else "sad"] for case, _ in chosen]
    blind.write(chosen, replies, tmp_path)
    return tmp_path, chosen


def label(folder: Path, name: str = "right") -> None:
    file = folder / blind.LABELLED
    rows = [{**json.loads(line), "label": name} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_file_to_label_hides_the_model(labelled: Any) -> None:
    folder, chosen = labelled
    shown = (folder / blind.LABELLED).read_text()
    assert not any(name in shown for name in ("base", "sft", "aligned", "hit:"))
    numbers = [json.loads(line)["number"] for line in shown.splitlines()]
    assert numbers != sorted(numbers)
    assert len({case.item.conv_id for case, _ in chosen}) == 30
    assert {name: sum(who == name for _, who in chosen) for name in ("base", "sft", "aligned")} == {
        "base": 10,
        "sft": 10,
        "aligned": 10,
    }


def test_labels_measure_the_judge_and_compare_the_models(
    labelled: Any, data: Path, judge: Judge
) -> None:
    folder, _ = labelled
    with pytest.raises(DataError, match="must be one of"):
        blind.read(folder)
    label(folder)
    labels = blind.read(folder)
    found = measured.on_labels(judge, read_cases(data / VALID), labels)
    assert found["agree, both decided"].value > 0.8 and found["n"] == 30
    assert found["table"]["right"]["right"] == found["judged"]
    assert all(one["right"].value == 1 for one in measured.by_model(labels).values())


def test_labels_are_never_overwritten(labelled: Any) -> None:
    folder, chosen = labelled
    label(folder)
    with pytest.raises(DataError, match="holds labels"):
        blind.write(chosen, [NEUTRAL] * 30, folder)


def test_a_rule_that_tells_is_found_and_one_that_does_not_is_chance() -> None:
    draw_ = random.Random(0)
    words = ["fine", "day", "sun", "rain", "cup"]
    base = [" ".join(draw_.choices(words, k=draw_.randrange(5, 12))) for _ in range(200)]
    aligned = [f"{' '.join(draw_.choices(words, k=draw_.randrange(5, 12)))}?" for _ in range(200)]
    found = tells.measure(base, aligned)
    assert found.accuracy["a question"].value == 1.0
    assert found.accuracy["all rules together"].value > 0.95
    assert found.accuracy["length"].low < 0.5 < found.accuracy["length"].high
    assert found.accuracy["opener"].value == 0.5
    assert found.disclosed["base"]["ai_disclosure"] == 0


def test_names_give_a_side_away() -> None:
    found = tells.measure(["I am SmolLM, made by Hugging Face."] * 20, ["Oh no!"] * 20)
    assert found.accuracy["names and machine's phrases"].value == 1.0
    assert found.disclosed["base"]["identity_leak"] == 20


def test_an_embedding_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def encoder(_model: Path) -> Any:
        def rows(texts: Sequence[str]) -> Any:
            read.extend(texts)
            return np.array([[len(text)] * 768 for text in texts], np.float16)

        return rows

    monkeypatch.setattr("recipes.effect.embeddings._Encoder", encoder)
    first = Embeddings(tmp_path, tmp_path / "kept")(["a", "bb", "a"])
    assert first[:, 0].tolist() == [1, 2, 1] and sorted(read) == ["a", "bb"]
    again = Embeddings(tmp_path, tmp_path / "kept")(["bb", "ccc"])
    assert again[:, 0].tolist() == [2, 3] and sorted(read) == ["a", "bb", "ccc"]


def test_rows_of_one_dialogue_belong_together(data: Path) -> None:
    cases = read_cases(data / VALID)[:10]
    file = predictions("base", cases, [NEUTRAL] * 10)
    assert [len(list(group)) for _, group in itertools.groupby(file.dialogues)] == [2] * 5


def test_a_new_study_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    def study(title: str) -> dict[str, Any]:
        words = {"title": title, "command": "c", "text": "t", "reading": "r"}
        return {**words, "columns": ["a"], "rows": [["1"]]}

    file = tmp_path / "studies.json"
    file.write_text(json.dumps([study("198 replies labelled"), study("Another")]))
    put_studies([study("200 replies labelled")], file)
    titles = [one["title"] for one in json.loads(file.read_text())]
    assert titles == ["200 replies labelled", "Another"]


def test_the_card_says_what_each_step_of_training_changed(tmp_path: Path) -> None:
    def entry(a: str, b: str, one: float, other: float) -> dict[str, Any]:
        found = {"a": a, "b": b, "metric": "feeling.right", "mean_a": one, "mean_b": other}
        difference = other - one
        interval = [difference - 0.05, difference + 0.05]
        return {**found, "difference": difference, "interval": interval, "p_holm": 0.01}

    steps = [entry("base", "sft", 0.4, 0.6), entry("base", "aligned", 0.4, 0.7)]
    data = ResultsData(
        systems={HUMAN: {"feeling": {"right": 0.68}}},
        paired=[*steps, entry("sft", "aligned", 0.6, 0.7)],
        about="## Title\n\nOn these dialogues.",
    )
    file = tmp_path / "README.md"
    file.write_text("# Card\n\nMade so.\n\n## Side by side\n\nx\n")
    card.write(data, file)
    card.write(data, file)
    text = file.read_text()
    assert text.count(card.HEADING) == 1 and text.endswith("## Side by side\n\nx\n")
    row = "| right feeling ↑ | 0.400 | 0.600 | 0.700 | 0.680 | +0.200* [+0.150, +0.250] |"
    assert row in text and "+0.300* [+0.250, +0.350] |" in text and "On these dialogues." in text


def test_probes_are_noticed_and_stand_in_the_guide() -> None:
    class Engine:
        def stream(self, requests: Any) -> Any:
            for one in requests:
                yield Finished(one.side, "eos", f"I am an AI, says {one.contender} | x", 3, 1.0)

    from empo_demo.contenders.roster import Contender, Roster

    roster = Roster("r", (Contender("base", "m"), Contender("aligned", "m", adapter="a")))
    found = probes.ask(Engine(), roster)  # type: ignore[arg-type]
    assert len(found) == len(probes.CRISIS) + len(probes.IDENTITY) + len(probes.PERSONAL)
    assert sum(one.noticed for one in found if one.kind == "personal data") >= 5
    document = probes.written(f"before\n{probes.START}\nold\n{probes.END}\nafter\n", found)
    assert document.startswith("before") and document.endswith("after\n") and "old" not in document
    assert f"| identity | {len(probes.IDENTITY)} |" in document
    assert "I am an AI, says aligned / x" in document
    assert probes.START in probes.GUIDE.read_text(encoding="utf8")
