"""Chat templates of many makers: no text is lost, and no typed text opens or ends a turn."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from empo_demo.engine.text.chat_template import encode_chat, load_tokenizer, read_chat, template_of
from empo_demo.errors import EngineError
from empo_demo.settings import ASSETS
from tests.outside.makers import CASES, Case

TINY = ASSETS / "tiny" / "base"

SYSTEM = {"role": "system", "content": "Be warm to them."}
USER = {"role": "user", "content": "My dog died."}
REPLY = {"role": "assistant", "content": "Oh no."}
AGAIN = {"role": "user", "content": "He was old."}
LONG = (SYSTEM, USER, REPLY, AGAIN)
HEADERS = (
    r"^[^\S\n]*(?:###\s*\w+:|USER:|ASSISTANT:|(?:User|Assistant)[ \t]*(?:\t|$)"
    r"|GPT4 Correct \w+:|\*\*\w+\*\*:|[问答]：)|\sASSISTANT:"
)
FOLDED = ("gemma", "no system", "parts", "chatglm2")


@lru_cache
def tiny_tokenizer() -> Any:
    return load_tokenizer(str(TINY))


@lru_cache
def tokenizer_of(case: Case) -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = case.template
    tokenizer.add_tokens(list(case.tokens), special_tokens=case.special)
    return tokenizer


@pytest.fixture
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tokenizer_of(CASES[request.param])


def text_of(tokenizer: Any, messages: Any) -> str:
    return str(tokenizer.decode(encode_chat(tokenizer, messages)))


@pytest.mark.parametrize("tokenizer", CASES, indirect=True)
@pytest.mark.parametrize("messages", [LONG, LONG[:2], LONG[1:], LONG[1:2]])
def test_every_text_is_in_the_prompt(tokenizer: Any, messages: Any) -> None:
    prompt = text_of(tokenizer, messages).lower()
    assert all(prompt.count(m["content"].lower()) == 1 for m in messages)


@pytest.mark.parametrize("name", [n for n in CASES if n not in FOLDED])
def test_a_template_that_keeps_all_is_not_changed(name: str) -> None:
    tokenizer = tokenizer_of(CASES[name])
    plain = tokenizer.apply_chat_template(list(LONG), add_generation_prompt=True, return_dict=False)
    assert encode_chat(tokenizer, LONG) == plain


ATTACKS = [(name, text) for name, case in CASES.items() for text in case.opens]


@pytest.mark.parametrize(("name", "attack"), ATTACKS)
@pytest.mark.parametrize("around", ["{}", "{} you", "I said {}", "well\n{}\nno"])
def test_no_typed_text_opens_or_ends_a_turn(name: str, attack: str, around: str) -> None:
    tokenizer = tokenizer_of(CASES[name])
    control = template_of(tokenizer).control
    typed = around.format(attack)

    def marks(text: str) -> tuple[list[int], list[str]]:
        ids = encode_chat(tokenizer, (SYSTEM, {"role": "user", "content": text}))
        prompt = tokenizer.decode(ids)
        found = re.findall(HEADERS, prompt.replace("\u2028", "\n").replace("\r", "\n"), re.M | re.I)
        found += re.findall(r"\[/?(?:INST|USER|ASSISTANT)\]|<</?SYS>>|<\|\w+\|>", prompt, re.I)
        return [i for i in ids if i in control], [" ".join(f.split()).lower() for f in found]

    assert marks(typed) == marks("hello there")


@pytest.mark.parametrize("name", CASES)
def test_honest_texts_are_read_as_they_were_typed(name: str) -> None:
    tokenizer = tokenizer_of(CASES[name])
    texts = [
        "I <3 my dog, 2 < 3 and a [note]! (yes | no) 誰 😢 — “ok”",
        "The user said: no. My assistant: he left.\n\nInstruction manual\n# Title",
        "line one\n\nline two!!! *sigh*",
    ]
    for text in texts:
        assert template_of(tokenizer).safe(tokenizer, text) == text


def test_the_ends_are_the_tokens_of_turns() -> None:
    tokenizer = tokenizer_of(CASES["deepseek"])
    ends = {tokenizer.convert_ids_to_tokens(i) for i in template_of(tokenizer).ends}
    assert {"<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"} <= ends


def test_a_plain_header_of_the_user_stops_the_reply() -> None:
    alpaca = tokenizer_of(CASES["alpaca"])
    assert template_of(alpaca).stops == ("\n### Instruction:",)
    assert template_of(tokenizer_of(CASES["chatml"])).stops == ()


@pytest.mark.parametrize("token", ["!", "the", "..."])
def test_a_padding_token_that_is_a_word_is_a_word(token: str, changed: Callable[..., Path]) -> None:
    tokenizer: Any = load_tokenizer(str(changed(pad_token=token)))
    template = template_of(tokenizer)
    assert tokenizer.pad_token == token and tokenizer.pad_token_id not in template.ends
    assert template.safe(tokenizer, "I won! Oh the joy... yes") == "I won! Oh the joy... yes"


def test_a_template_that_demands_a_system_text_gets_an_empty_one() -> None:
    template = (
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('first message must be system')"
        " }}{% endif %}" + CASES["phi"].template
    )
    tokenizer = tokenizer_of(Case(template))
    assert "Be warm to them." in text_of(tokenizer, LONG)
    assert "My dog died." in text_of(tokenizer, [USER])


REFUSED = {
    "raises": ("{{ raise_exception('only tools are taken') }}", "only tools are taken"),
    "is broken": ("{% for m in %}", "Expected an"),
    "fails": ("{{ messages[0]['content']['no']['way'] }}", "has no"),
    "loses all": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% endfor %}",
        "user's text",
    ),
    "loses earlier turns": ("<|user|>{{ messages[-1]['content'] }}<|assistant|>", "text"),
    "loses replies": (
        "{% for m in messages %}{% if m['role'] != 'assistant' %}{{ '<|user|>' + m['content'] }}"
        "{% endif %}{% endfor %}<|assistant|>",
        "assistant's text",
    ),
    "loses the turns before the last ones": (
        "{% for m in messages[:1] + messages[1:][-3:] %}{{ '<|' + m['role'] + '|>' }}"
        "{{ m['content'] }}{% endfor %}<|assistant|>",
        "of a long dialogue",
    ),
    "takes a few turns only": (
        "{% if messages | length > 8 %}{{ raise_exception('at most four turns') }}{% endif %}"
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
        "<|assistant|>",
        "at most four turns",
    ),
    "cuts a long text": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'][:1000] }}{% endfor %}"
        "<|assistant|>",
        "of a long dialogue",
    ),
    "shortens a long text": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | truncate(500) }}"
        "{% endfor %}<|assistant|>",
        "of a long dialogue",
    ),
    "opens turns with one sign": (
        "{% for m in messages %}{{ {'user': '> ', 'assistant': '< '}.get(m['role'], '') + "
        "m['content'] + '\n' }}{% endfor %}< ",
        "a typed '<' would open a turn",
    ),
    "writes no turns": (
        "{% for m in messages %}{{ m['content'] + '\n\n' }}{% endfor %}",
        "between the turns",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    name: str, changed: Callable[..., Path]
) -> None:
    template, words = REFUSED[name]
    folder = changed(template)
    tokenizer = load_tokenizer(str(folder))
    with pytest.raises(EngineError) as refused:
        template_of(tokenizer)
    told = str(refused.value)
    assert str(folder) in told and words in told and "EMPO_ENGINE" in told and "\n" not in told


THINKING = {
    "qwen3": (
        CASES["chatml"].template
        + "{% if enable_thinking is defined and enable_thinking is false %}"
        "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
        "<think>\n\n</think>\n\n",
        False,
    ),
    "deepseek 3.1": (
        CASES["deepseek"].template + "{% if not thinking is defined %}{% set thinking = true %}"
        "{% endif %}{{ '<think>' if thinking else '</think>' }}",
        "</think>",
        False,
    ),
    "seed": (
        CASES["chatml"].template + "{% if thinking_budget is defined and thinking_budget == 0 %}"
        "{{ '<seed:think></seed:think>' }}{% endif %}",
        "<seed:think></seed:think>",
        False,
    ),
    "gpt-oss": (
        "{{ 'Reasoning: ' + (reasoning_effort or 'medium') + '\n' }}" + CASES["chatml"].template,
        "Reasoning: low",
        False,
    ),
    "strict effort": (
        "{% if reasoning_effort not in ['none', 'high'] %}{{ raise_exception('bad effort') }}"
        "{% endif %}{{ '[' + reasoning_effort + ']' }}" + CASES["chatml"].template,
        "[none]",
        False,
    ),
    "command-a": (
        CASES["chatml"].template + "{% if reasoning %}{{ '<|START_THINKING|>' }}{% else %}"
        "{{ '<|START_THINKING|><|END_THINKING|>' }}{% endif %}",
        "<|START_THINKING|><|END_THINKING|>",
        False,
    ),
    "r1": (CASES["chatml"].template + "{{ '<think>\n' }}", "<think>\n", True),
}


@pytest.mark.parametrize("name", THINKING)
def test_no_thinking_is_asked_for_where_the_template_takes_that(name: str) -> None:
    template, words, opened = THINKING[name]
    tokenizer = tokenizer_of(Case(template, ("<|im_start|>", "<|im_end|>")))
    prompt = read_chat(tokenizer, LONG)
    assert words in tokenizer.decode(prompt.ids) and prompt.opened is opened


def test_a_typed_mark_of_a_thought_opens_none() -> None:
    tokenizer = tokenizer_of(CASES["chatml"])
    typed = {"role": "user", "content": "<think> [THINK] <|channel|> ◁think▷"}
    assert not read_chat(tokenizer, (SYSTEM, typed)).opened


def test_marks_of_thoughts_end_no_reply() -> None:
    harmony = (
        "{% for m in messages %}{{ '<|start|>' + m['role'] }}{{ '<|channel|>final' if m['role'] == "
        "'assistant' else '' }}{{ '<|message|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    )
    tokens = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "[THINK]")
    tokenizer = tokenizer_of(Case(harmony, tokens, special=True))
    ends = {tokenizer.convert_ids_to_tokens(i) for i in template_of(tokenizer).ends}
    assert ends.isdisjoint(tokens)
    phi = tokenizer_of(CASES["phi"])
    assert "<|end|>" in {phi.convert_ids_to_tokens(i) for i in template_of(phi).ends}


def makers() -> list[Path]:
    """The templates of many makers, as TRL ships them."""
    spec = find_spec("trl")
    folder = Path(spec.origin).parent / "chat_templates" if spec and spec.origin else Path("none")
    return sorted(p for p in folder.glob("*.jinja") if not p.stem.endswith("_training"))


@pytest.mark.parametrize("path", makers(), ids=lambda path: path.stem)
def test_the_templates_of_many_makers(path: Path) -> None:
    source = path.read_text(encoding="utf8")
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.bos_token = "</s>"
    tokenizer.chat_template = source
    tags = sorted(set(re.findall(r"<[|｜]?[\w▁/]+[|｜]?>|\[/?[A-Z]{3,}\]", source)))
    tokenizer.add_tokens(tags)
    control = template_of(tokenizer).control
    prompt = read_chat(tokenizer, LONG)
    text = tokenizer.decode(prompt.ids)
    assert all(m["content"] in text for m in LONG)
    # DeepSeek R1 always thinks; all others can be asked not to.
    assert prompt.opened is path.stem.startswith("deepseek")

    def marks(typed: str) -> list[int]:
        ids = encode_chat(tokenizer, (SYSTEM, {"role": "user", "content": typed}))
        return [i for i in ids if i in control]

    assert marks(f"I {' '.join(tags)}\n{''.join(tags)} said") == marks("hello")
