"""Both formats are read alike; what cannot be read is one error that names its line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError

HEADER = ["prevs", "gen_targets", "gens"]
ROW = ["I lost my dog.", "Oh no, I'm sorry.", "That is sad, how old was he?"]
LEVELS = [f"{side}_{m}_scores" for side in ("pred", "gt") for m in ("ER", "EX", "IP")]


def write_csv(path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def line(**changes: object) -> str:
    record = {
        "conv_id": "c1",
        "context": [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "I lost my dog."},
        ],
        "reference": "Oh no, I'm sorry.",
        "response": "That is sad.",
    }
    return json.dumps({**record, **changes}) + "\n"


@pytest.mark.parametrize("separator", [",", "~"])
def test_both_separators_of_the_papers_files_are_read(tmp_path: Path, separator: str) -> None:
    quoted = ['He said: "no, ~ never",\nand left.', *ROW[1:]]
    file = write_csv(tmp_path / "x.csv", [HEADER, ROW, quoted], separator)
    rows = read_predictions(file).rows
    assert [rows[0].user, rows[0].reference, rows[0].response] == ROW
    assert rows[1].user == quoted[0]


def test_texts_that_look_like_missing_values_stay_texts(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "x.csv", [HEADER, ["NA", "None", "nan"], ["a", "b", ""]])
    predictions = read_predictions(file)
    assert predictions.rows[0].response == "nan"
    assert predictions.rows[1].response == ""
    assert predictions.empty_replies == 1


def test_the_name_is_the_stem_and_gzip_is_seen_by_content(tmp_path: Path) -> None:
    plain = write_csv(tmp_path / "plain.csv", [HEADER, ROW])
    packed = tmp_path / "preds_a.b.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_predictions(packed).name == "preds_a.b"
    assert read_predictions(packed).rows == read_predictions(plain).rows


def test_stored_levels_are_read_by_mechanism(tmp_path: Path) -> None:
    rows = [[*HEADER, *LEVELS], [*ROW, "2", "1.0", "0", "0", "1", "2"]]
    row = read_predictions(write_csv(tmp_path / "x.csv", rows)).rows[0]
    assert row.generated_levels == {"er": 2, "ex": 1, "ip": 0}
    assert row.reference_levels == {"er": 0, "ex": 1, "ip": 2}


@pytest.mark.parametrize("level", ["3", "0.5", "", "nan", "high"])
def test_a_level_that_does_not_exist_is_named(tmp_path: Path, level: str) -> None:
    rows = [[*HEADER, *LEVELS], [*ROW, level, "1", "0", "0", "1", "2"]]
    with pytest.raises(DataError, match=r"line 2: pred_ER_scores is .*a level is 0, 1 or 2"):
        read_predictions(write_csv(tmp_path / "x.csv", rows))


def test_our_own_lines_give_the_last_user_turn(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(line() + "\n" + line(context=["Hi.", "I lost my cat."], response=""))
    first, second = read_predictions(file).rows
    assert first.user == "I lost my dog."
    assert len(first.context) == 3
    assert second.user == "I lost my cat."


def test_repeated_contexts_are_counted_and_kept(tmp_path: Path) -> None:
    predictions = read_predictions(write_csv(tmp_path / "x.csv", [HEADER, ROW, ROW, ROW]))
    assert len(predictions.rows) == 3
    assert predictions.repeated_contexts == 2


def test_missing_columns_are_named(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "x.csv", [["prevs", "text"], ["a", "b"]])
    with pytest.raises(DataError, match="has no column gens, gen_targets"):
        read_predictions(file)


def test_a_row_of_another_length_is_named_by_its_line(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "x.csv", [HEADER, ROW, ROW[:2]])
    with pytest.raises(DataError, match="line 3: the row has 2 fields, the header has 3"):
        read_predictions(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"context": ["a"], "reference": "b"}\n', "line 1: the object has no response"),
        (line() + '{"context": ["a"], "refer', "line 2: this is not a complete JSON object"),
        (line(context=[]), "at least one"),
        (line(context="a text"), "must be a list of turns"),
        (line(context=[{"role": "user"}]), "role and content"),
        (line(response=None), "must be texts"),
        ("{}\n", "has no context, reference, response"),
        ("", "has no column"),
        (",".join(HEADER) + "\n", "holds no row"),
    ],
)
def test_a_malformed_file_is_one_line_of_error(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "x"
    file.write_text(content)
    with pytest.raises(DataError) as error:
        read_predictions(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x00\x00", b"\xff\xfe\xfa", b"\x1f\x8bbroken"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a UTF-8 text file"):
        read_predictions(file)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        read_predictions(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path)


HEADERS = st.sampled_from([b"", b"prevs,gen_targets,gens\n", b"prevs~gen_targets~gens\n", b'{"'])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADERS, st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(
    tmp_path: Path, header: bytes, body: bytes
) -> None:
    file = tmp_path / "any"
    file.write_bytes(header + body)
    try:
        predictions = read_predictions(file)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert predictions.rows
