"""EmpatheticDialogues as published: read, what was left out counted, and no `_comma_` left."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.dialogues import read_items
from empo_demo.training import preferences
from empo_demo.training.corpus import empathetic_file, read_conversations

HEADER = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"


def rows(number: int, emotion: str, *texts: str, sep: str = ",") -> list[str]:
    return [
        sep.join(
            [
                f"hit:{number}_conv:{2 * number}",
                str(i),
                emotion,
                "It broke_comma_ sadly.",
                str(900 + i % 2),
                text,
                "5|5|5_2|2|5",
                "",
            ]
        )
        for i, text in enumerate(texts, start=1)
    ]


SAD = rows(1, "sad", "My dog died_comma_ today", "Oh no_comma_ why?", "He was old", "I see")
JOY = rows(2, "joyful", 'He said "yes"!', '"Wow" is all I say', "Thanks", '"Great_comma_ so!"')


def write(folder: Path, lines: list[str], header: str = HEADER, ends: str = "\n") -> Path:
    file = folder / "train.csv"
    file.write_text(ends.join([header, *lines]) + ends, encoding="utf8", newline="")
    return folder


def texts(folder: Path) -> dict[str, list[str]]:
    return {
        one.conv_id: [turn["content"] for turn in one.turns]
        for one in read_conversations(folder, "train")
    }


WHOLE = {
    "hit:1_conv:2": ["My dog died, today", "Oh no, why?", "He was old", "I see"],
    "hit:2_conv:4": ['He said "yes"!', '"Wow" is all I say', "Thanks", "Great, so!"],
}


def test_the_published_file_is_read_with_its_commas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [*SAD, *JOY])
    assert texts(tmp_path) == WHOLE and capsys.readouterr().err == ""
    one, _ = read_conversations(tmp_path, "train")
    assert (one.emotion, one.situation, one.target) == ("sad", "It broke, sadly.", 3)
    assert [turn["role"] for turn in one.turns] == ["user", "assistant"] * 2


WAYS = {
    "Windows": lambda f: write(f, [*SAD, *JOY], ends="\r\n"),
    "mixed dialogues": lambda f: write(f, [r for pair in zip(JOY, SAD, strict=True) for r in pair]),
    "any order": lambda f: write(f, [*SAD[::-1], *JOY[::-1]]),
    "rows twice": lambda f: write(f, [*SAD, *SAD[:2], *JOY]),
    "spaces in the header": lambda f: write(f, [*SAD, *JOY], HEADER.replace(",", " , ")),
    "empty lines": lambda f: write(f, ["", *SAD, ",,,,,,,", *JOY, ""]),
    "semicolons": lambda f: write(
        f, [row.replace(",", ";") for row in [*SAD, *JOY]], HEADER.replace(",", ";")
    ),
    "trailing separators": lambda f: write(f, [f"{row},," for row in [*SAD, *JOY]]),
}


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_write_it_give_the_same_dialogues(tmp_path: Path, way: str) -> None:
    WAYS[way](tmp_path)
    assert texts(tmp_path) == WHOLE


def test_a_table_that_pandas_saved_again_is_read(tmp_path: Path) -> None:
    lines = [row.replace("My dog died_comma_ today", '"My dog ""Rex"" died, today"') for row in SAD]
    assert texts(write(tmp_path, lines))["hit:1_conv:2"][0] == 'My dog "Rex" died, today'


BROKEN = {
    "shifted to the right": (SAD[1].replace("Oh no", "Oh,no"), 1, 1),
    "shifted at the beginning": (f"x,{SAD[1]}", 1, 1),
    "too short": (SAD[1].rsplit(",", 3)[0], 1, 1),
    "no number": (SAD[1].replace(",2,", ",two,"), 1, 1),
    "no emotion": (SAD[1].replace("sad,", "unknown,"), 1, 1),
    "an empty text": (SAD[1].replace("Oh no_comma_ why?", " \u200b"), 1, 1),
    "a missing turn": ("", 0, 1),
    "the same speaker twice": (SAD[1].replace(",900,", ",901,"), 0, 1),
    "a third speaker": (SAD[1].replace(",900,", ",7,"), 0, 1),
    "another text of the same turn": (SAD[1] + "\n" + SAD[1].replace("why", "how"), 0, 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_dialogue_that_lacks_a_turn_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    line, bad, lost = BROKEN[name]
    write(tmp_path, [SAD[0], line, *SAD[2:], *JOY])
    assert list(texts(tmp_path)) == ["hit:2_conv:4"]
    said = capsys.readouterr().err
    assert f"{bad} rows with shifted" in said and f"{lost} dialogues without all" in said


def test_a_bad_last_row_does_not_leave_a_dialogue_cut_short(tmp_path: Path) -> None:
    write(tmp_path, [*SAD[:3], SAD[3].replace("I see", "I,see"), *JOY])
    assert list(texts(tmp_path)) == ["hit:2_conv:4"]


def test_no_pair_of_any_source_holds_comma_as_a_word(tmp_path: Path) -> None:
    lines = [
        row
        for i in range(8)
        for row in rows(i, ("sad", "joyful")[i % 2], "a_comma_ b", f"c_comma_ {i}", "d")
    ]
    write(tmp_path, lines)
    out = tmp_path / "pairs.jsonl"
    said = preferences.from_dialogues(tmp_path, out, split="train", draws=2, seed=0, control="none")
    assert "16 pairs of 8 dialogues" in said
    assert (
        "_comma_" not in out.read_text()
        and ", " in json.loads(out.read_text().split("\n")[0])["chosen"][0]["content"]
    )
    record = {
        "conv_id": "c",
        "emotion": "sad",
        "situation": "x_comma_ y",
        "utterances": [
            {"role": "user", "content": "a_comma_ b"},
            {"role": "assistant", "content": "c_comma_ d"},
        ],
    }
    (tmp_path / "empathetic_dialogues.train.jsonl.gz").write_bytes(
        gzip.compress(json.dumps(record).encode())
    )
    (one,) = read_conversations(tmp_path, "train")
    assert "_comma_" not in str(one) and one.turns[1]["content"] == "c, d"
    (item,) = read_items(tmp_path / "empathetic_dialogues.train.jsonl.gz").items
    assert (item.context.turns[0].content, item.reference) == ("a, b", "c, d")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_recorded_replies_hold_no_comma_as_a_word(tmp_path: Path, form: str) -> None:
    """Votes on them are exported as pairs."""
    file = tmp_path / f"replies.{form}"
    texts = ("a_comma_ b", "c_comma_ d", "e_comma_ f")
    if form == "csv":
        file.write_text("prevs,gen_targets,gens\n" + ",".join(texts) + "\n")
    else:
        said = {"context": [texts[0]], "reference": texts[1], "response": texts[2]}
        file.write_text(json.dumps(said))
    (row,) = read_predictions(file).rows
    assert (row.context, row.user) == (("a, b",), "a, b")
    assert (row.reference, row.response) == ("c, d", "e, f")


def test_our_own_file_comes_before_the_published_one(tmp_path: Path) -> None:
    write(tmp_path, SAD)
    (tmp_path / "empatheticdialogues").mkdir()
    (tmp_path / "empatheticdialogues" / "valid.csv").write_text(f"{HEADER}\n" + "\n".join(JOY))
    assert empathetic_file(tmp_path, "train").name == "train.csv"
    assert len(read_conversations(tmp_path, "valid")) == 1, "as the authors' archive unpacks"
    (tmp_path / "empathetic_dialogues.train.jsonl.gz").touch()
    assert empathetic_file(tmp_path, "train").suffix == ".gz"


def test_replies_can_be_generated_on_the_published_file(tmp_path: Path) -> None:
    write(tmp_path, [*SAD, *JOY[:2], *rows(3, "sad", "Alone"), JOY[2].replace("k", ","), JOY[3]])
    found = read_items(tmp_path / "train.csv")
    assert [item.conv_id for item in found.items] == ["hit:1_conv:2"]
    assert found.items[0].reference == "I see"
    assert len(found.skipped) == 2 and "1 rows with shifted" in found.skipped[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,text\n1,a\n", "has no column conv_id, .* names id, text.*own CSV has conv_id"),
        (f"{HEADER}\n", "holds no whole dialogue"),
        (f"{HEADER}\n{SAD[0]},x,y\n", "1 rows have shifted"),
        ("\n".join([HEADER, *SAD[1:]]), "0 rows have shifted, .* 1 dialogues lack a turn"),
    ],
)
def test_a_file_that_is_not_it_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_conversations(tmp_path, "train")
    with pytest.raises(DataError, match=r"nor EmpatheticDialogues' own valid\.csv"):
        read_conversations(tmp_path, "valid")
