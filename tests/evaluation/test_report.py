"""The report is one page that opens offline, escapes texts, and survives missing figures."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path

import pytest

from empo_demo.engine.predictions import Predictions, Row, read_predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.metric_agreement import agreement
from empo_demo.evaluation.report import figures, page, paper_table
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
        Row((f"Something happened, {i}.",), f"Something happened, {i}.", f"Human says {i}.", reply)
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


def test_the_page_fetches_nothing_and_runs_no_text(data: ResultsData) -> None:
    content = page(data)
    without_plotly = re.sub(r"<script>.*?</script>", "", content, flags=re.DOTALL)
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)\s*=", without_plotly)
    assert "alert(1)" not in without_plotly.replace(
        html.escape(EVIL).replace("&quot;", "&#34;"), ""
    )
    assert html.escape(EVIL).replace("&quot;", "&#34;") in content
    assert "Content-Security-Policy" in content


def test_no_cell_of_the_page_is_nan(data: ResultsData) -> None:
    assert not re.search(
        r"\b(?:nan|NaN|None|inf)\b", re.sub(r"<script.*?</script>", "", page(data), flags=re.DOTALL)
    )
    labels = [line[0] for line in paper_table(data)]
    assert "words per reply" in labels and "BERTScore F1 ↑" not in labels


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
    assert "There are no votes yet" in page(empty)


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
        "base": "base", "aligned": "aligned", "revision": "r", "quantization": "nf4",
        "tasks": [dataclasses.asdict(row) for row in rows],
    }  # fmt: skip
    file = tmp_path / "retention.json"
    file.write_text(json.dumps(record))
    assert "+0.5000 ± 0.5000" in page(ResultsData(retention=read_retention(file)))
    file.write_text("[]")
    with pytest.raises(DataError, match="is not what `evaluate retention --json` prints"):
        read_retention(file)
