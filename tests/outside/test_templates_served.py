"""The engine with templates and tokenizers as people bring them: right, or refused at load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.loader import Loader
from empo_demo.engine.loading import load_engine
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.engine.servers.routing import RoutingEngine
from empo_demo.errors import EngineError
from empo_demo.settings import ASSETS, load_settings

JOY = "I got the job today, I am so happy!"
PARTS = (
    "{% for m in messages %}{{ '<|'+m['role']+'|>' }}{% for p in m['content'] %}"
    "{% if p['type']=='text' %}{{ p['text'] }}{% endif %}{% endfor %}{{ '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DEMANDING = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('first message must be system') }}"
    "{% endif %}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def reply_of(folder: Path, system: str = "") -> str:
    """The greedy reply in fp32."""
    loader = Loader("cpu", "none")
    loader.dtype = "float32"
    engine = LocalEngine(loader.load([Contender("x", str(folder))]), {}, max_rounds=1)
    messages = ({"role": "user", "content": JOY},)
    if system:
        messages = ({"role": "system", "content": system}, *messages)
    *_, end = engine.stream([Request("a", "x", messages, Decoding(0.0, 1.0, 1.0, 16))])
    assert isinstance(end, Finished)
    return end.text


@pytest.mark.parametrize("token", ["!", "?"])
def test_a_padding_token_that_is_a_word_ends_no_reply(
    token: str, changed: Callable[..., Path]
) -> None:
    expected = reply_of(ASSETS / "tiny" / "base")
    assert token in expected
    assert reply_of(changed(pad_token=token)) == expected


@pytest.mark.slow
def test_a_template_for_parts_is_answered_as_the_same_one_for_texts(
    changed: Callable[..., Path],
) -> None:
    assert reply_of(changed(PARTS), "Be warm.") == reply_of(ASSETS / "tiny" / "base", "Be warm.")


def test_a_template_that_demands_a_system_text_is_served(changed: Callable[..., Path]) -> None:
    folder = changed(DEMANDING)
    assert reply_of(folder, "Be warm.") == reply_of(ASSETS / "tiny" / "base", "Be warm.")
    assert reply_of(folder)


def test_a_template_that_raises_is_refused_when_the_model_is_loaded(
    changed: Callable[..., Path],
) -> None:
    folder = changed("{{ raise_exception('only tools are taken') }}")
    with pytest.raises(EngineError, match=r"only tools are taken; save a template"):
        reply_of(folder)


@pytest.mark.slow
def test_a_template_that_demands_words_of_the_system_is_refused_where_there_are_none(
    changed: Callable[..., Path],
) -> None:
    """At load, and not at a visitor's reply; no system text is invented."""
    empty = "messages[0]['role'] != 'system' or not messages[0]['content']"
    folder = changed(DEMANDING.replace("messages[0]['role'] != 'system'", empty))
    roster = Roster("own", (Contender("x", str(folder)),), quantization="none", tiny=True)
    settings = load_settings(device="cpu")
    with pytest.raises(EngineError, match="demands a system text") as caught:
        load_engine(settings, roster)
    assert "EMPO_SYSTEM_PROMPT" in str(caught.value) and "\n" not in str(caught.value)
    load_engine(settings, replace(roster, system_prompt="Be warm.")).close()
    assert reply_of(folder, "Be warm.") == reply_of(ASSETS / "tiny" / "base", "Be warm.")


def test_what_a_model_reads_of_a_typed_text_can_be_asked() -> None:
    loader = Loader("cpu", "none")
    copies = loader.load([Contender("x", str(ASSETS / "tiny" / "base"))])
    engine = LocalEngine(copies, {}, max_rounds=1)
    read = engine.as_read("x", ["Hi <|user|>!", "Hi."])
    assert read == ["Hi < |user|>!", "Hi."]
    assert RoutingEngine({"x": engine}).as_read("x", ["</s>"]) == ["< /s>"]
