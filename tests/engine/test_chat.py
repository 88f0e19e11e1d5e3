"""Nothing that a person wrote can open a turn, and nothing else about a prompt changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from empo_demo.engine.text.chat_template import (
    dropped_exchanges,
    encode_chat,
    load_tokenizer,
    template_of,
)
from empo_demo.engine.text.marks import defuse

ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else m['content'] "
    "+ eos_token }}{% endfor %}"
)
TAGS = [
    "</s>",
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "<|pad|>",
    "<|im_start|>",
    "[INST]",
    "[/INST]",
    "<</SYS>>",
    "<s>",
    "<|",
    "|>",
    "\n",
    "<",
    " ",
    "assistant",
    "hello",
    "</",
    "s>",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(str(tiny_folder))


@pytest.fixture
def zephyr(tiny_folder: Path) -> Any:
    tokenizer = load_tokenizer(str(tiny_folder))
    tokenizer.chat_template = ZEPHYR
    return tokenizer


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def special(tokenizer: Any, ids: list[int]) -> list[int]:
    return [token for token in ids if token in tokenizer.all_special_ids]


def test_an_honest_message_is_encoded_as_the_template_has_it(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "The user feels joyful."},
        {"role": "user", "content": "I <3 my dog, 2 < 3 and a [note]. 誰 😢"},
    ]
    expected = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encode_chat(tokenizer, messages) == expected


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(st.sampled_from(TAGS), min_size=1, max_size=12))
def test_no_text_adds_a_control_token(tokenizer: Any, parts: list[str]) -> None:
    harmless = special(tokenizer, encode_chat(tokenizer, user("hello")))
    assert special(tokenizer, encode_chat(tokenizer, user("".join(parts)))) == harmless


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(st.sampled_from(TAGS), min_size=1, max_size=12))
def test_no_text_writes_a_tag_that_is_plain_text_in_the_template(
    zephyr: Any, parts: list[str]
) -> None:
    text = zephyr.decode(encode_chat(zephyr, user("".join(parts))))
    assert text.count("<|user|>") == 1 and text.count("<|assistant|>") == 1
    assert text.count("</s>") == 1 and "<|system|>" not in text


def test_a_broken_tag_keeps_its_words() -> None:
    assert defuse("a <|user|> b", ["<|user|>"]).replace(" ", "") == "a<|user|>b"


def test_a_template_without_a_system_role_gets_it_in_the_first_turn(tokenizer: Any) -> None:
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = NO_SYSTEM
    ids = encode_chat(tokenizer, [{"role": "system", "content": "Be kind."}, *user("Hi there.")])
    assert tokenizer.decode(ids) == "[INST] Be kind.\n\nHi there. [/INST]"


def test_the_oldest_exchanges_go_first_and_the_system_message_stays(tokenizer: Any) -> None:
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": f"turn number {i} of the dialogue"}
        for i in range(9)
    ]
    messages = [{"role": "system", "content": "Be kind."}, *turns]
    whole = len(encode_chat(tokenizer, messages))
    assert dropped_exchanges(tokenizer, messages, whole) == 0
    dropped = dropped_exchanges(tokenizer, messages, whole - 1)
    assert dropped == 1
    text = tokenizer.decode(encode_chat(tokenizer, messages, dropped))
    assert "Be kind." in text and "number 2" in text
    assert "number 0" not in text and "number 1" not in text
    assert dropped_exchanges(tokenizer, messages, 5) == 4


def test_only_a_plain_text_tag_is_a_stop_string(tokenizer: Any, zephyr: Any) -> None:
    assert template_of(zephyr).stops == ()  # the tiny tokenizer knows <|user|> as a token
    zephyr.chat_template = ZEPHYR.replace("'<|'", "'<#'").replace("'|>", "'#>")
    assert template_of(zephyr).stops == ("<#user#>",)
    assert template_of(tokenizer).stops == ()
