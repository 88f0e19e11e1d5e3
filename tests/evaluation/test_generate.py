"""Generation resumes after a kill, does not depend on batches, and ends in the data's order."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.predictions import read_predictions
from empo_demo.engine.protocol import Decoding, Event, Failed, Finished, Request
from empo_demo.errors import DataError
from empo_demo.evaluation.dialogues import Item, read_items
from empo_demo.evaluation.generate import Generator, batches, fill, put_in_order, read_done, seed_of
from empo_demo.settings import ASSETS

CONTENDER = Contender("base", base="none")
ROSTER = Roster("test", (CONTENDER,), system_prompt="Be kind.", decoding=Decoding(stop=("#",)))


class Parrot:
    """An engine that answers with what it was asked, so that each answer can be checked."""

    def __init__(self, killed_after: int | None = None, fails: Sequence[str] = ()) -> None:
        self.calls: list[Sequence[Request]] = []
        self.killed_after, self.fails = killed_after, fails

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        if self.killed_after is not None and len(self.calls) >= self.killed_after:
            raise KeyboardInterrupt
        self.calls.append(requests)
        for request in reversed(requests):
            if request.side in self.fails:
                yield Failed(request.side, "Out of words.")
            else:
                text = f" You said {request.messages[-1]['content']} ({request.seed}) "
                yield Finished(request.side, "eos", text, 3, 1.0)

    def describe(self) -> dict[str, str]:
        return {"engine": "parrot"}


def write_data(path: Path, count: int = 7) -> Path:
    def turns(i: int) -> list[dict[str, str]]:
        user = {"role": "user", "content": f"Something happened to me {'again ' * (i % 3)}{i}."}
        return [
            user,
            {"role": "assistant", "content": f"Human reply {i}."},
            {"role": "user", "content": "Thanks."},
        ]

    records = [
        {"conv_id": f"c{i}", "emotion": "sad", "situation": "-", "utterances": turns(i)}
        for i in range(count)
    ]
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return read_items(write_data(tmp_path / "data.jsonl.gz")).items


def generate(
    items: Sequence[Item], output: Path, engine: Parrot | None = None, batch: int = 2
) -> list[Failed]:
    done = read_done(output, "base", 5)
    missing = [item for item in items if item.conv_id not in done]
    generator = Generator(engine or Parrot(), ROSTER, CONTENDER, seed=5)
    failed = fill(generator, missing, output, batch)
    put_in_order(output, [item.conv_id for item in items])
    return failed


def test_the_last_listener_turn_is_the_reference_and_what_follows_is_dropped(
    items: tuple[Item, ...],
) -> None:
    assert items[3].reference == "Human reply 3."
    assert items[3].context.messages() == [
        {"role": "user", "content": "Something happened to me 3."}
    ]


def test_each_dialogue_gets_its_own_reply_in_the_order_of_the_data(
    items: tuple[Item, ...], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    assert generate(items, output) == []
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["conv_id"] for record in records] == [f"c{i}" for i in range(7)]
    assert records[4]["response"].startswith("You said Something happened to me again 4.")
    assert set(records[0]) >= {
        "conv_id",
        "context",
        "reference",
        "response",
        "contender",
        "seed",
    }
    predictions = read_predictions(output)
    assert predictions.rows[4].reference == "Human reply 4."


def test_a_reply_does_not_depend_on_the_batch_it_is_made_in(
    items: tuple[Item, ...], tmp_path: Path
) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    generate(items, one, batch=1)
    generate(items, other, batch=5)
    assert one.read_bytes() == other.read_bytes()


def test_a_killed_run_goes_on_where_it_stopped(items: tuple[Item, ...], tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    generate(items, whole)
    with pytest.raises(KeyboardInterrupt):
        generate(items, output, Parrot(killed_after=2))
    with output.open("a") as file:
        file.write('{"conv_id": "c0", "respo')
    engine = Parrot()
    generate(items, output, engine)
    assert sum(len(call) for call in engine.calls) == 3
    assert output.read_bytes() == whole.read_bytes()


def test_a_failed_reply_is_reported_not_written_and_tried_again(
    items: tuple[Item, ...], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    failed = generate(items, output, Parrot(fails=["c3"]))
    assert [failure.error for failure in failed] == ["Out of words."]
    assert len(read_predictions(output).rows) == 6
    assert generate(items, output) == []
    assert [row.reference for row in read_predictions(output).rows][3] == "Human reply 3."


def test_the_prompt_is_the_system_prompt_and_the_context(
    items: tuple[Item, ...], tmp_path: Path
) -> None:
    engine = Parrot()
    generate(items, tmp_path / "out.jsonl", engine)
    request = engine.calls[0][0]
    assert request.messages[0] == {"role": "system", "content": "Be kind."}
    assert request.decoding == ROSTER.decoding


def test_dialogues_of_like_length_are_answered_together(items: tuple[Item, ...]) -> None:
    lengths = [
        [len(i.context.turns[0].content) for i in batch] for batch in batches(items, 3, lambda i: i)
    ]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)


def test_seeds_differ_between_dialogues_and_runs() -> None:
    seeds = {seed_of(run, f"c{i}") for run in range(3) for i in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_file_of_another_contender_or_seed_is_not_continued(
    items: tuple[Item, ...], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    generate(items, output)
    with pytest.raises(DataError, match="holds replies of 'base' with seed 5"):
        read_done(output, "aligned", 5)
    with pytest.raises(DataError, match="holds replies of 'base' with seed 5"):
        read_done(output, "base", 6)


@pytest.mark.parametrize("notes", ["my notes\n", "my notes", "\n", '{"text": "half'])
def test_a_file_that_is_something_else_is_not_overwritten(tmp_path: Path, notes: str) -> None:
    output = tmp_path / "notes.txt"
    output.write_text(notes)
    with pytest.raises(DataError, match="line 1: this is not a file that"):
        read_done(output, "base", 0)
    assert output.read_text() == notes


@pytest.mark.parametrize("torn", ["{", '{"conv', '{"conv_id": "c9", "context": [{"rol'])
def test_what_a_killed_run_tore_is_removed(
    items: tuple[Item, ...], tmp_path: Path, torn: str
) -> None:
    output = tmp_path / "out.jsonl"
    generate(items, output)
    whole = output.read_text()
    output.write_text(whole + torn)
    assert read_done(output, "base", 5) == {f"c{i}" for i in range(7)}
    assert output.read_text() == whole


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        read_done(tmp_path / "absent" / "out.jsonl", "base", 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json\n", "line 1: this is not a complete JSON object"),
        ('{"conv_id": "a"}\n', "line 1: an object with conv_id and utterances"),
        ('{"conv_id": "a", "utterances": ["hi"]}\n', "must be a list of"),
        ("", "holds no dialogue with a listener's turn"),
    ],
)
def test_malformed_data_is_one_clear_error(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(content)
    with pytest.raises(DataError) as error:
        read_items(file)
    assert said in str(error.value)


def test_a_dialogue_without_a_listener_is_skipped_and_named(tmp_path: Path) -> None:
    file = write_data(tmp_path / "data.jsonl", 2)
    odd = {"conv_id": "odd", "utterances": [{"role": "user", "content": "Hello?"}]}
    file.write_text(json.dumps(odd) + "\n" + file.read_text())
    found = read_items(file)
    assert len(found.items) == 2
    assert "(odd)" in found.skipped[0]
    assert len(read_items(file, limit=1).items) == 1


def test_every_dialogue_of_the_validation_split_can_be_answered(data_dir: Path) -> None:
    found = read_items(data_dir / "empathetic_dialogues.valid.jsonl.gz")
    assert len(found.items) + len(found.skipped) == 2769
    assert len(found.skipped) < 30
    assert all(item.context.turns[-1].role == "user" for item in found.items)


def test_dialogues_of_our_own_need_no_reference(tmp_path: Path) -> None:
    found = read_items(ASSETS / "examples.json")
    assert len(found.items) >= 12
    assert all(item.reference == "" and item.context.turns for item in found.items)
    output = tmp_path / "out.jsonl"
    generate(found.items, output)
    assert len(read_predictions(output).rows) == len(found.items)


@pytest.mark.parametrize("content", ["[", "[1]", "[]", '[{"title": "a", "turns": []}]'])
def test_malformed_examples_are_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "examples.json"
    file.write_text(content)
    with pytest.raises(DataError):
        read_items(file)
