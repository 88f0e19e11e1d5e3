"""Pair files of other people: read as they mean it, or refused by line before any training."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.errors import DataError, EngineError
from empo_demo.settings import ASSETS
from empo_demo.training.pair_file import fitting, read_pairs, read_rated

KEYS, SORRY, GREAT = "I lost my keys.", "I am so sorry.", "Great!"


def user(text: str = KEYS) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str = SORRY) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def share(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


PAIR = {"prompt": [user()], "chosen": [reply()], "rejected": [reply(GREAT)]}
SYSTEM = {"role": "system", "content": "Be warm."}
HH = "\n\nHuman: {}\n\nAssistant: {}"
FORMS: dict[str, dict[str, Any]] = {
    "TRL's own": PAIR,
    "plain texts": {"prompt": KEYS, "chosen": SORRY, "rejected": GREAT},
    "texts beside lists": {"prompt": [user()], "chosen": SORRY, "rejected": [reply(GREAT)]},
    "UltraFeedback": {
        "prompt": KEYS,
        "chosen": [user(), reply()],
        "rejected": [user(), reply(GREAT)],
    },
    "no prompt": {"chosen": [user(), reply()], "rejected": [user(), reply(GREAT)]},
    "an empty prompt": {
        **PAIR,
        "prompt": [],
        "chosen": [user(), reply()],
        "rejected": [user(), reply(GREAT)],
    },
    "Anthropic's transcripts": {
        "chosen": HH.format(KEYS, SORRY),
        "rejected": HH.format(KEYS, GREAT),
    },
    "ShareGPT": {
        "prompt": [share("human", KEYS)],
        "chosen": [share("gpt", SORRY)],
        "rejected": [share("chatgpt", GREAT)],
    },
    "LLaMA-Factory": {
        "conversations": [share("human", KEYS)],
        "chosen": share("gpt", SORRY),
        "rejected": share("gpt", GREAT),
    },
    "parts of content": {
        **PAIR,
        "prompt": [
            {
                "role": "User",
                "content": [
                    {"type": "text", "text": "I lost "},
                    {"type": "text", "text": "my keys."},
                ],
            }
        ],
    },
    "spaces at the ends": {
        "prompt": f"{KEYS}\n",
        "chosen": [user(), reply()],
        "rejected": [user(), reply(GREAT)],
    },
}
LONGER: dict[str, dict[str, Any]] = {
    "a system column": {**PAIR, "system": "Be warm."},
    "a system turn": {**PAIR, "prompt": [SYSTEM, user()]},
    "the last turn as prompt": {
        "prompt": KEYS,
        "chosen": [SYSTEM, user(), reply()],
        "rejected": [SYSTEM, user(), reply(GREAT)],
    },
    "the system turn in the prompt only": {
        "prompt": [SYSTEM, user()],
        "chosen": [user(), reply()],
        "rejected": [user(), reply(GREAT)],
    },
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_common_form_gives_the_same_turns(tmp_path: Path, name: str) -> None:
    (row,) = read_pairs(write(tmp_path / "pairs.jsonl", FORMS[name]))
    assert [row["chosen"], row["rejected"]] == [[reply()], [reply(GREAT)]]
    assert [(turn["role"], turn["content"].strip()) for turn in row["prompt"]] == [("user", KEYS)]
    rated = read_rated(write(tmp_path / "pairs.jsonl", FORMS[name]))
    assert [(row["completion"], row["label"]) for row in rated] == [
        ([reply()], True),
        ([reply(GREAT)], False),
    ]


@pytest.mark.parametrize("name", LONGER)
def test_a_system_text_is_kept_wherever_it_stands(tmp_path: Path, name: str) -> None:
    (row,) = read_pairs(write(tmp_path / "pairs.jsonl", LONGER[name]))
    assert row["prompt"] == [SYSTEM, user()]


@pytest.mark.parametrize("raw", ["BOM", "gzip", "one list", "UTF-16"])
def test_the_file_itself_may_be_written_in_other_ways(tmp_path: Path, raw: str) -> None:
    text = json.dumps(PAIR) + "\n" + json.dumps(PAIR) + "\n"
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(
        {
            "BOM": text.encode("utf-8-sig"),
            "gzip": gzip.compress(text.encode()),
            "one list": json.dumps([PAIR, PAIR], indent=2).encode(),
            "UTF-16": text.encode("utf-16"),
        }[raw]
    )
    assert read_pairs(file) == [PAIR, PAIR]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "score": NaN}', "it holds NaN"),
        ('{"prompt": "a", "chosen": "b \\ud83d", "rejected": "c"}', "half of a surrogate pair"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"},', "Extra data"),
        ("prompt,chosen,rejected", "it is not JSON"),
    ],
)
def test_a_line_that_is_no_json_says_why(tmp_path: Path, raw: str, said: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(PAIR)}\n{raw}\n", encoding="utf8")
    with pytest.raises(DataError, match=f"line 2: this is not a complete JSON object: .*{said}"):
        read_pairs(file)


def test_a_file_that_is_not_there_is_one_of_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.jsonl; .* with --pairs"):
        read_pairs(tmp_path / "none.jsonl")


def test_what_was_made_of_plain_texts_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_pairs(write(tmp_path / "pairs.jsonl", FORMS["plain texts"], PAIR, FORMS["plain texts"]))
    said = capsys.readouterr().err
    assert "pairs.jsonl: 2 rows hold plain texts: a prompt became the user's turn" in said
    read_pairs(write(tmp_path / "pairs.jsonl", PAIR))
    assert capsys.readouterr().err == ""


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({**PAIR, "rejected": None}, "rejected is null"),
    "a null content": ({**PAIR, "chosen": [reply(None)]}, "assistant's turn in chosen is null"),  # type: ignore[arg-type]
    "an empty reply": ({**PAIR, "rejected": [reply("")]}, "turn in rejected is empty"),
    "a reply that shows nothing": ({**PAIR, "rejected": "\u200b\u2800 "}, "in rejected is empty"),
    "no turns": ({**PAIR, "chosen": []}, "chosen has no turn"),
    "an empty prompt": ({**PAIR, "prompt": ""}, "turn in prompt is empty"),
    "a number": ({**PAIR, "chosen": 3}, "chosen is 3; a text or a list of turns"),
    "texts in a list": ({**PAIR, "chosen": ["a"]}, "a turn has a role and a content"),
    "a tool": ({**PAIR, "prompt": [user(), {"role": "tool", "content": "x"}]}, "turn of 'tool'"),
    "a system text that is none": ({**PAIR, "system": 5}, "system is 5; a text is expected"),
    "no role": ({**PAIR, "prompt": [{"content": "x"}]}, "turn of None"),
    "a picture": (
        {**PAIR, "prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        "only tex",
    ),
    "only a system text": ({**PAIR, "prompt": [SYSTEM]}, "are system; after"),
    "the assistant first": ({**PAIR, "prompt": [reply("Hi."), user()]}, "are assistant, user; "),
    "the assistant last": ({**PAIR, "prompt": [user(), reply("Hi.")]}, "first and last"),
    "the user twice": ({**PAIR, "prompt": [user(), user()]}, "must alternate"),
    "a reply of the user": ({**PAIR, "chosen": [user("x")]}, "chosen ends with the user's turn"),
    "two prompts": (
        {"chosen": [user("x"), reply()], "rejected": [user("y"), reply(GREAT)]},
        "before the last differ in chosen and rejected",
    ),
    "another prompt within": (
        {**PAIR, "chosen": [user("x"), reply()], "rejected": [user("x"), reply(GREAT)]},
        "prompt and the turns",
    ),
    "a rated reply": (
        {"prompt": KEYS, "completion": SORRY, "label": True},
        "chosen, rejected is mi",
    ),
    "other columns": (
        {"question": KEYS, "chosen": SORRY, "rejected": GREAT},
        "prompt is missing; the row has question, chosen, rejected",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_row_that_is_no_pair_is_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    row, said = FAULTS[name]
    file = write(tmp_path / "pairs.jsonl", PAIR, PAIR, row)
    with pytest.raises(DataError, match=said) as caught:
        read_pairs(file)
    assert str(caught.value).startswith(f"{file}, line 3: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("label", "read"), [(True, True), (0, False), (1.0, True), (False, False)])
def test_a_label_is_true_or_false_or_a_number_for_it(
    tmp_path: Path, label: object, read: bool
) -> None:
    row = {"prompt": KEYS, "completion": SORRY, "label": label}
    assert read_rated(write(tmp_path / "rows.jsonl", row))[0]["label"] is read


@pytest.mark.parametrize("label", ["false", "true", "yes", "desirable", 2, -1, 0.5, None, [], {}])
def test_a_label_that_is_no_boolean_is_refused(tmp_path: Path, label: object) -> None:
    """Python takes "false" for true; such a file would train the opposite of what it says."""
    good = {"prompt": KEYS, "completion": SORRY, "label": True}
    file = write(tmp_path / "rows.jsonl", good, {**good, "label": label})
    with pytest.raises(DataError, match=r"line 2: label is .*; true or false"):
        read_rated(file)


def test_equal_replies_teach_nothing_and_are_left_out_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = {**PAIR, "rejected": [reply(f" {SORRY}")]}
    assert read_pairs(write(tmp_path / "pairs.jsonl", same, PAIR, same)) == [PAIR]
    assert "2 rows have the same text as chosen and as rejected" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"holds no rows \(1 rows have the same text"):
        read_pairs(write(tmp_path / "pairs.jsonl", same))
    with pytest.raises(DataError, match="holds no rows; nothing"):
        read_pairs(write(tmp_path / "pairs.jsonl"))


def test_no_pair_holds_comma_as_a_word(tmp_path: Path) -> None:
    row = {
        "prompt": "Oh_comma_ no_comma_ it broke.",
        "chosen": "I see_comma_ poor you",
        "rejected": "Ha",
    }
    (read,) = read_pairs(write(tmp_path / "pairs.jsonl", row))
    assert read["prompt"][0]["content"] == "Oh, no, it broke."
    assert read["chosen"][0]["content"] == "I see, poor you"


def test_prompts_without_room_for_a_reply_are_counted_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_tokenizer(str(ASSETS / "tiny" / "base"))
    long = {**PAIR, "prompt": [user("so " * 300)]}
    file = tmp_path / "pairs.jsonl"
    assert fitting([PAIR, long], tokenizer, 256, file) == [PAIR]
    assert "1 rows have prompts of 256 tokens or more" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"every prompt is too long: the shortest has 30\d tokens"):
        fitting([long, long], tokenizer, 256, file)


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"


def test_prompts_get_the_form_in_which_the_model_is_served(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(ASSETS / "tiny" / "base"))
    typed = {**PAIR, "prompt": [user("I said <|assistant|> and </s> to him")]}
    (row,) = fitting([typed], tokenizer, 256, tmp_path)
    text = str(tokenizer.apply_chat_template(row["prompt"], tokenize=False))
    assert text.count("<|assistant|>") == 0 and text.count("</s>") == 1
    own = str(tokenizer.chat_template)
    tokenizer.chat_template = NO_SYSTEM + own
    (row,) = fitting([LONGER["a system turn"]], tokenizer, 256, tmp_path)
    assert row["prompt"] == [user(f"Be warm.\n\n{KEYS}")]
    tokenizer.chat_template = own + "{% if enable_thinking is false %}{% endif %}"
    (row,) = fitting([PAIR], tokenizer, 256, tmp_path)
    assert row["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_template_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(ASSETS / "tiny" / "base"))
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(EngineError, match="never"):
        fitting([PAIR], tokenizer, 256, tmp_path)
