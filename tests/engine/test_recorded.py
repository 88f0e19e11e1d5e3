"""A file of replies serves as a contender."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine import predictions
from empo_demo.engine.loading import load_engine
from empo_demo.engine.predictions import HUMAN, RecordedEngine, read_recordings
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request
from empo_demo.errors import DataError, SettingsError
from empo_demo.settings import Settings

ROWS = [
    ("My cat came home after two weeks.", "What a relief! Where was she?", "Glad to hear it."),
    ("I broke my sister's vase.", "Does she know yet?", "That must feel awful. Did you tell her?"),
]


def write_csv(path: Path, separator: str = ",", rows: list[tuple[str, str, str]] = ROWS) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["emotions", "prevs", "gen_targets", "gens"])
        writer.writerows([("joyful", prev, human, model) for prev, human, model in rows])
    return path


def engine_of(path: Path, **options: float) -> RecordedEngine:
    file = str(path)
    return RecordedEngine(
        [Contender("model", "", predictions=file), Contender(HUMAN, "", predictions=file)],
        **{"characters_per_second": 0, **options},
    )


def ask(text: str, seed: int = 0) -> list[Request]:
    messages = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": text})
    return [Request("a", "model", messages, seed=seed), Request("b", HUMAN, messages, seed=seed)]


def texts(events: list[Event]) -> dict[str, str]:
    return {event.side: event.text for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
@pytest.mark.parametrize("separator", [",", "~"])
def test_both_columns_of_a_csv_are_contenders(tmp_path: Path, name: str, separator: str) -> None:
    engine = engine_of(write_csv(tmp_path / name, separator))
    for prev, human, model in ROWS:
        assert texts(list(engine.stream(ask(prev)))) == {"a": model, "b": human}
    assert [d.turns[-1].content for d in engine.dialogues()] == [prev for prev, _, _ in ROWS]


def test_jsonl_keeps_whole_dialogues(tmp_path: Path) -> None:
    context = ["We lost the final.", "Oh no. Was it close?", "One point."]
    record = {
        "conv_id": "1",
        "context": context,
        "reference": "Ouch.",
        "response": "So close!",
        "contender": "aligned",
        "seed": 0,
    }
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(record) + "\n")
    engine = engine_of(path)
    (dialogue,) = engine.dialogues()
    assert [turn.role for turn in dialogue.turns] == ["user", "assistant", "user"]
    messages = tuple(dialogue.messages("Be kind."))
    assert engine.reply("model", messages) == "So close!"
    assert engine.reply(HUMAN, messages) == "Ouch."


def test_both_sides_are_typed_out_at_one_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only sleeping moves: a busy machine would write in larger pieces."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = SimpleNamespace(perf_counter=lambda: now, sleep=sleep)
    monkeypatch.setattr(predictions, "time", clock)
    long, short = "word " * 20 + "end.", "Just this."
    path = write_csv(tmp_path / "p.csv", rows=[("Hello there.", short, long)])
    shown = {"a": "", "b": ""}
    for event in engine_of(path, characters_per_second=400).stream(ask("Hello there.")):
        if isinstance(event, Delta):
            shown[event.side] += event.text
            if shown["a"] != long and shown["b"] != short:
                assert abs(len(shown["a"]) - len(shown["b"])) <= 40
    assert shown == {"a": long, "b": short}
    assert 0.2 <= now <= len(long) / 400 + 0.1


@pytest.mark.parametrize(
    "thought", ["<think>\nHm.\n</think>\n\n", "Hm.</think> ", "[THINK]Hm[/THINK]"]
)
def test_recorded_thoughts_are_no_part_of_the_reply(thought: str, tmp_path: Path) -> None:
    prev, human, model = ROWS[0]
    rows = [(prev, human, thought + model), ("I fell.", "Ouch.", "<think>Only thought")]
    engine = engine_of(write_csv(tmp_path / "m.csv", rows=rows))
    assert [d.turns[0].content for d in engine.dialogues()] == [prev]
    assert texts(list(engine.stream(ask(prev))))["a"] == model


def test_another_dialogue_is_refused_in_words_on_both_sides(tmp_path: Path) -> None:
    events = list(engine_of(write_csv(tmp_path / "p.csv")).stream(ask("Something else.")))
    assert [type(event) for event in events] == [Failed, Failed]
    assert all("recorded" in event.error for event in events if isinstance(event, Failed))


def test_rows_that_cannot_be_a_round_are_no_dialogues(tmp_path: Path) -> None:
    rows = [*ROWS, ("I am tired.", "Rest.", ""), ("What\x07now?", "Well.", "Well?")]
    assert len(read_recordings(write_csv(tmp_path / "p.csv", rows=rows))) == len(ROWS)


def test_a_repeated_dialogue_has_a_reply_for_each_seed(tmp_path: Path) -> None:
    rows = [("Hi there.", "Hello.", "One."), ("Hi there.", "Hey.", "Two.")]
    engine = engine_of(write_csv(tmp_path / "p.csv", rows=rows))
    assert len(engine.dialogues()) == 1
    replies = {texts(list(engine.stream(ask("Hi there.", seed))))["a"] for seed in range(4)}
    assert replies == {"One.", "Two."}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prevs,gens\na,b\n")
    with pytest.raises(DataError, match=r"p\.csv has no column gen_targets"):
        engine_of(path)
    path.write_text("prevs,gens,gen_targets\na,,\n")
    with pytest.raises(DataError, match="no row that can be shown"):
        engine_of(path)


def test_the_engine_setting_alone_starts_an_arena_of_recorded_replies(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "dpo.csv.gz")
    settings = Settings(engine=str(path))
    roster = load_roster(settings)
    assert [c.id for c in roster.contenders] == ["dpo", HUMAN]
    assert len({c.revision for c in roster.contenders}) >= 1 and not roster.tiny
    engine = load_engine(settings, roster)
    messages = ({"role": "user", "content": ROWS[0][0]},)
    events = list(engine.stream([Request("a", "dpo", messages)]))
    assert texts(events) == {"a": ROWS[0][2]}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="EMPO_ENGINE holds"):
        load_roster(Settings(engine=str(tmp_path / "none.csv")))


def test_a_file_and_a_model_share_a_round_at_one_pace(tmp_path: Path, tiny_folder: Path) -> None:
    path = write_csv(tmp_path / "p.csv")
    roster = Roster(
        "mixed",
        (Contender("base", str(tiny_folder)), Contender("model", "", predictions=str(path))),
        quantization="none",
    )
    engine = load_engine(Settings(device="cpu"), roster)
    messages = ({"role": "user", "content": ROWS[1][0]},)
    events = list(engine.stream([Request("a", "base", messages), Request("b", "model", messages)]))
    assert texts(events)["b"] == ROWS[1][2] and set(texts(events)) == {"a", "b"}


def test_the_published_sample_can_be_voted_on(data_dir: Path) -> None:
    engine = engine_of(data_dir / "empo_predictions_sample.csv.gz")
    dialogues = engine.dialogues()
    assert len(dialogues) > 250
    for dialogue in dialogues:
        events = list(engine.stream(ask(dialogue.turns[-1].content)))
        assert len(texts(events)) == 2
