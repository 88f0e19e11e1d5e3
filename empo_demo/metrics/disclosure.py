"""Counts replies that break the blind test: a model says that it is one, or which one it is.

The English patterns are our own. They look for statements about the speaker and not for the words
alone: "my AI class was cancelled" is not a disclosure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MACHINE = (
    r"(?:an?\s+)?(?:(?:ai|artificial intelligence|large|virtual|digital|conversational)\s+)*"
    r"(?:ai|a\.i\.|artificial intelligence|language model|llm|chat\s?bot|bot|assistant|"
    r"computer program|machine)"
)
_DESCRIBED = (
    r"an?\s+(?:[a-z-]+\s+){0,3}(?:ai|a\.i\.|artificial intelligence|language model|llm|"
    r"chat\s?bot)\b(?!\s+(?:fan|user|class|course|student|researcher|engineer|developer|"
    r"company|startup|conference|project|teacher|professor|artist|expert|skeptic))"
)
"""A machine with words before it, as "a highly advanced AI assistant"; not who works with one."""
DISCLOSURE = re.compile(
    rf"\bas\s+{_MACHINE}\b"
    rf"|\b(?:as|i(?:\s+am|['’]m))\s+{_DESCRIBED}"
    rf"|\bi(?:\s+am|['’]m)\s+(?:just\s+|only\s+|merely\s+)?{_MACHINE}\b"
    r"|\bi(?:\s+am|['’]m)\s+not\s+(?:a\s+)?(?:real\s+)?(?:human|person)\b"
    r"|\bi\s+(?:do\s+not|don['’]t|cannot|can['’]t)\s+(?:actually\s+)?(?:have|feel|experience)\s+"
    r"(?:real\s+|human\s+|personal\s+)?(?:feelings|emotions|experiences)\b",
    re.IGNORECASE,
)
"""The speaker says that it is a machine."""

IDENTITY = re.compile(
    r"\b(?:zephyr|mistral|mixtral|chatgpt|gpt-?[234o]\w*|openai|anthropic|llama-?\d?|gemini|"
    r"deepmind|qwen|phi-?[234]|gemma|blenderbot|smol\s?lm-?\d?|hugging\s?face|fine-?tuned|dpo|"
    r"empo)\b",
    re.IGNORECASE,
)
"""The name of a model, a maker or a training method."""

ROLE_TAG = re.compile(
    r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|^\s*(?:user|assistant|system)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""A piece of a chat template that leaked into the reply."""


def discloses_machine(text: str) -> bool:
    return DISCLOSURE.search(text) is not None


def leaks_identity(text: str) -> bool:
    return IDENTITY.search(text) is not None


def leaks_template(text: str) -> bool:
    return ROLE_TAG.search(text) is not None


def counts(texts: Sequence[str]) -> dict[str, int]:
    """In how many texts each pattern is found. A text counts once."""
    return {
        "ai_disclosure": sum(map(discloses_machine, texts)),
        "identity_leak": sum(map(leaks_identity, texts)),
        "template_leak": sum(map(leaks_template, texts)),
    }
