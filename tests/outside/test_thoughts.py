"""What a model thinks is no part of its reply, however it marks its thoughts."""

from __future__ import annotations

from typing import Any

import pytest

from empo_demo.engine.lockstep.row import Detokenizer, Row
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.text.marks import ALL_THOUGHT, UNMARKED, ThoughtFilter, opens_thought, spoken
from empo_demo.settings import ASSETS

WHOLE = [
    "<think>\nThe user is sad.\n</think>\n\nI am sorry.",
    "<think></think>I am sorry.",
    "<think>\n\n</think>\n\nI am sorry.",
    "<thinking>Is it <reflection>sad</reflection>?</thinking>\n<output>I am sorry.</output>",
    "<THINK>sad</THINK> I am sorry.",
    "<thought>sad</thought> I am sorry.",
    "<reasoning>\nsad\n</reasoning>\n<answer>\nI am sorry.\n</answer>",
    "<seed:think>sad <seed:cot_budget_reflect>2</seed:cot_budget_reflect></seed:think>I am sorry.",
    "<longcat_think>sad</longcat_think>I am sorry.",
    "<think>sad</think>\n\n<response>\nI am sorry.\n</response>\n",
    "[THINK]The user [is] sad.[/THINK]I am sorry.",
    "◁think▷sad◁/think▷I am sorry.",
    "<|begin_of_thought|>\nsad\n<|end_of_thought|>\n<|begin_of_solution|>I am sorry."
    "<|end_of_solution|>",
    "<|START_THINKING|>sad<|END_THINKING|><|START_RESPONSE|>I am sorry.<|END_RESPONSE|>",
    "<|think|>sad<|/think|>I am sorry.",
    "<｜begin▁of▁thought｜>sad<｜end▁of▁thought｜>I am sorry.",
    "<|inner_prefix|>sad<|inner_suffix|>I am sorry.",
    "<unused94>thought\nsad<unused95>I am sorry.",
    "<|channel>thought\nsad<channel|>I am sorry.",
    "<|channel|>analysis<|message|>The user is sad.<|end|><|start|>assistant<|channel|>final"
    "<|message|>I am sorry.<|return|>",
    "<|channel|>analysis<|message|>sad<|end|><|start|>assistant<|channel|>commentary to=a "
    "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>"
    "I am sorry.",
    "<|channel|>final<|message|>I am sorry.<|end|>",
    "analysisThe user is sad, as a friend.assistantfinalI am sorry.",
    "analysis We need to be warm.assistantanalysisSo: sorry.\n\nassistantfinal I am sorry.",
    "analysis\nHe is sad.\nassistant commentaryassistantcommentary{}assistantfinalI am sorry.",
    "analysis<|message|>sad<|end|><|start|>assistant<|channel|>final<|message|>I am sorry.",
    "assistantfinalI am sorry.",
    "finalI am sorry.",
    "</think>\n\nI am sorry.",
    "I am <think>how?</think>sorry.",
]
PLAIN = [
    "I <3 you, and 2 < 3 > 1 [note] <b>so</b> [sigh] <",
    "I think <so>; [think] about it.",
    "<answer>Yes.</answer>",
    "a ◁ b < / c [ d",
    "Array[INT] and <thinker> and <",
    "analysis of what? A finally, an assistant, final.",
    "final I say: a",
    "Ask your assistant. assistantfinally. (a",
    " assist",
    "commentary",
]


def streamed(text: str, size: int, *, opened: bool = False) -> str:
    one = ThoughtFilter(opened=opened)
    pieces = [one.push(text[i : i + size]) for i in range(0, len(text), size)]
    return "".join([*pieces, one.flush()])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", WHOLE)
def test_only_the_reply_is_let_through(text: str, size: int) -> None:
    assert streamed(text, size).strip() == spoken(text) == "I am sorry."


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("text", PLAIN)
def test_a_reply_without_thoughts_is_unchanged(text: str, size: int) -> None:
    one = ThoughtFilter()
    shown = [one.push(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join([*shown, one.flush()]) == text
    assert not one.thought and not one.stray


def test_a_word_is_held_back_only_while_it_may_be_a_mark() -> None:
    one = ThoughtFilter()
    assert one.push("I <") == "I "
    assert one.push("3 you") == "<3 you"
    assert one.push(" (a") == " (" and one.push(" dog)") == "a dog)"


@pytest.mark.parametrize(
    "text",
    [
        "analysisI wonder",
        "<think>I wonder",
        "<|channel|>analysis<|message|>I wonder",
        "[THINK]I won",
        "<think>",
    ],
)
def test_a_thought_that_is_never_closed_is_all_thought(text: str) -> None:
    one = ThoughtFilter()
    assert (one.push(text) + one.flush()).strip() == ""
    assert one.thought and spoken(text) == ""


def test_a_reply_may_begin_inside_a_thought_that_the_prompt_opened() -> None:
    assert streamed("The user is sad.</think>\n\nI am sorry.", 1, opened=True).strip() == (
        "I am sorry."
    )
    assert streamed("The user is sad.", 1, opened=True) == ""


def test_a_closing_mark_that_nobody_opened_says_that_thoughts_were_shown() -> None:
    text = "The user is sad.</think>\n\nI am sorry."
    one = ThoughtFilter()
    one.push(text)
    assert one.stray
    assert spoken(text) == "I am sorry."
    bare = ThoughtFilter()
    bare.push("The user is sad.assistantfinalI am sorry.")
    assert bare.stray and spoken("The user is sad.assistantfinalI am sorry.") == "I am sorry."


@pytest.mark.parametrize(
    ("prompt", "inside"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("<｜Assistant｜></think>", False),
        ("<seed:bos>assistant\n<seed:think>", True),
        ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>", True),
        ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|><|END_THINKING|>", False),
        ("<|start|>assistant", False),
    ],
)
def test_the_template_itself_may_open_a_thought(prompt: str, inside: bool) -> None:
    assert opens_thought(prompt) is inside


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tiny base's, with the marks of thoughts as tokens: special ones, and others."""
    tokenizer: Any = load_tokenizer(str(ASSETS / "tiny" / "base"))
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)
    return tokenizer


def answered(tokenizer: Any, text: str, *stop: str, opened: bool = False) -> tuple[Row, str]:
    """A row that the model answers with `text`, and what is shown of it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoding = Decoding(max_new_tokens=len(ids), stop=stop)
    detokenizer = Detokenizer(tokenizer, stop, opened=opened)
    row = Row(Request("a", "x", (), decoding), None, [], detokenizer)
    for token in ids:
        if not row.done:
            row.take(token, frozenset())
    return row, "".join(getattr(event, "text", "") for event in row.out[:-1])


@pytest.mark.parametrize("marks", [("<think>", "</think>"), ("[THINK]", "[/THINK]")])
def test_a_local_reply_is_without_its_thoughts(tokenizer: Any, marks: tuple[str, str]) -> None:
    row, shown = answered(tokenizer, f"{marks[0]}\nstop. sad.\n{marks[1]}\n\nI am sorry.", "stop")
    end = row.out[-1]
    assert isinstance(end, Finished) and end.text == shown == "I am sorry."
    assert end.reason == "length" and end.tokens > 8


def test_a_stop_string_still_ends_the_reply_after_a_thought(tokenizer: Any) -> None:
    row, shown = answered(tokenizer, "<think>stop</think>I am sorry. stop it", "stop")
    assert shown == "I am sorry. " and row.out[-1].reason == "stop"  # type: ignore[union-attr]


@pytest.mark.parametrize(("text", "opened"), [("<think>I wonder", False), ("I wonder", True)])
def test_a_local_reply_that_is_all_thought_says_so(tokenizer: Any, text: str, opened: bool) -> None:
    row, shown = answered(tokenizer, text, opened=opened)
    assert row.out[-1] == Failed("a", ALL_THOUGHT) and shown == ""


def test_a_thought_that_was_shown_fails_the_side(tokenizer: Any) -> None:
    row, _ = answered(tokenizer, "The user is sad.</think>I am sorry.")
    assert row.out[-1] == Failed("a", UNMARKED)
