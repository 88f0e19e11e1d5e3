"""The report is Markdown: escaped, without gaps; `assets/results.md` is what it writes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.engine.predictions import Prediction, Predictions, read_predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.charts import figures
from empo_demo.evaluation.metric_agreement import agreement
from empo_demo.evaluation.report import MARKDOWN, page, paper_table, read_studies, table
from empo_demo.evaluation.results import (
    HUMAN,
    RESULTS,
    SHUFFLED,
    ResultsData,
    evaluate,
    human_replies,
    read,
    read_retention,
    shuffled_replies,
)
from empo_demo.evaluation.retention import compare
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import Settings

METRICS = ["length", "distinct", "vad", "nidf", "safety"]
EVIL = '<script>alert(1)</script><img src="https://example.org/x.png">'


def predictions(name: str, replies: list[str]) -> Predictions:
    rows = tuple(
        Prediction(
            (f"Something happened, {i}.",), f"Something happened, {i}.", f"Human says {i}.", reply
        )
        for i, reply in enumerate(replies)
    )
    return Predictions(name, Path(f"{name}.jsonl"), rows)


BASE = predictions("base", [EVIL, "Oh.", "I see.", "", "How are you?", "Good."])
ALIGNED = predictions("aligned", [f"That must be a lot for you, {i}." for i in range(6)])


@pytest.fixture(scope="module")
def data() -> ResultsData:
    return evaluate([BASE, ALIGNED], METRICS, Tools(Settings()))


def test_the_ceiling_and_the_baseline_stand_beside_the_systems(data: ResultsData) -> None:
    assert list(data.systems) == ["base", "aligned", HUMAN, SHUFFLED]
    assert data.contenders == ["base", "aligned"]
    assert {(entry["a"], entry["b"]) for entry in data.paired} == {("base", "aligned")}


def test_shuffled_replies_are_all_of_other_dialogues() -> None:
    shuffled = shuffled_replies(BASE)
    assert sorted(shuffled.responses) == sorted(BASE.references)
    pairs = zip(shuffled.responses, BASE.references, strict=True)
    assert not any(one == other for one, other in pairs)
    assert human_replies(BASE).responses == BASE.references


def test_no_cell_of_the_page_is_nan(data: ResultsData) -> None:
    assert not re.search(r"\b(?:nan|NaN|None|inf)\b", page(data))
    labels = [line[0] for line in paper_table(data)]
    assert "words per reply" in labels and "BERTScore F1 ↑" not in labels


def test_somebodys_own_predictions_are_not_said_to_be_ours(data: ResultsData) -> None:
    assert "validation split" in page(data) and "validation split" not in page(data, own=True)


def test_every_figure_is_drawn_once_votes_are_there(data: ResultsData) -> None:
    row = agreement("nidf", [1.0, -1.0] * 10, [1, -1] * 10, [f"v{i}" for i in range(20)])
    undefined = agreement("vad.v", [0.0] * 20, [1, -1] * 10, [f"v{i}" for i in range(20)])
    voted = dataclasses.replace(
        data, agreement=[dataclasses.asdict(row), dataclasses.asdict(undefined)]
    )
    assert len(figures(voted)) == 3
    assert len(figures(data)) == 2
    assert "Kendall" in page(voted)


def test_a_system_name_cannot_put_markup_into_a_figure(data: ResultsData) -> None:
    evil = evaluate(
        [dataclasses.replace(BASE, name="<b>x</b>"), ALIGNED], ["length"], Tools(Settings())
    )
    names = [trace.name for figure in figures(evil) for trace in figure.data]
    assert not any("<b>" in name for name in names)


def test_examples_are_the_rows_that_differ_most(data: ResultsData) -> None:
    assert data.examples
    assert set(data.examples[0].replies) == {"base", "aligned"}


def test_stored_results_hold_no_text_of_a_dialogue(tmp_path: Path) -> None:
    sources = []
    for name, replies in (("base", ["Oh."] * 3), ("aligned", ["I am so glad for you!"] * 3)):
        source = tmp_path / f"{name}.jsonl"
        records = [
            {"context": [f"Secret story {i}."], "reference": "Mm.", "response": reply}
            for i, reply in enumerate(replies)
        ]
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        sources.append(source)
    data = evaluate([read_predictions(one) for one in sources], ["length"], Tools(Settings()))
    file = tmp_path / "results.json"
    file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(data, examples=[]))))
    assert "Secret story" not in file.read_text()
    assert read(file).systems == data.systems
    assert page(read(file)) == page(dataclasses.replace(data, examples=[]))


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    empty = read(tmp_path / "absent.json")
    assert "no evaluation" in empty.notices[0]
    assert "no evaluation" in page(empty)


def test_a_broken_results_file_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"systems": ')
    with pytest.raises(DataError, match="is not a file of results"):
        read(file)


def test_the_shipped_results_can_be_read_and_drawn() -> None:
    if not RESULTS.exists():
        pytest.skip("assets/results.json is not made yet: `evaluate results` makes it")
    shipped = read(RESULTS)
    assert all(not example.reference for example in shipped.examples), "ED's texts are not ours"
    assert {"base", "aligned"} <= set(shipped.contenders)
    assert figures(shipped)


def test_retention_is_shown_with_the_error_of_the_difference(tmp_path: Path) -> None:
    rows = compare({"t": {"acc": {"0": 1.0, "1": 0.0}}}, {"t": {"acc": {"0": 1.0, "1": 1.0}}})
    record = {
        "base": "base",
        "aligned": "aligned",
        "revision": "r",
        "quantization": "nf4",
        "tasks": [dataclasses.asdict(row) for row in rows],
    }
    file = tmp_path / "retention.json"
    file.write_text(json.dumps(record))
    assert "+0.5000 [-0.4800, +1.4800]" in page(ResultsData(retention=read_retention(file)))
    file.write_text("[]")
    with pytest.raises(DataError, match="is not what `evaluate retention --json` prints"):
        read_retention(file)


def test_the_page_beside_the_results_is_what_the_command_writes(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    done = CliRunner().invoke(app, ["report", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf8") == MARKDOWN.read_text(encoding="utf8"), (
        "the figures changed: run python -m empo_demo report"
    )


def test_every_table_has_as_many_cells_in_each_row() -> None:
    lines = MARKDOWN.read_text(encoding="utf8").splitlines()
    for one, other in itertools.pairwise(lines):
        if one.startswith("|") and other.startswith("|"):
            assert one.count("|") == other.count("|"), other
    assert "|---|" in table(("a|b", "c"), [("1", "2")])[1] and "a&#124;b" in table(("a|b",), [])[0]


def test_a_study_with_a_torn_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('[{"columns": ["a", "b"], "rows": [["1"]]}]')
    with pytest.raises(DataError, match="not a file of studies"):
        read_studies(tmp_path / "s.json")
