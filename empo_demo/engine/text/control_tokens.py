"""Breaks what a typed text could open or end a turn with. People see their text unchanged.

A space goes into every control token and every role header: into tokens of the tokenizer, into the
tags of the common templates, and into a template's own headers (`### Response:`, `USER:`) where
a line begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ANGLE = r"[|｜]?/?[\w▁:/.-]{1,40}[|｜]?>"
_TAGS = re.compile(
    rf"<(?={_ANGLE})"
    r"|<(?=</?SYS>)"
    r"|\[(?=[|｜][^\s\[\]]{1,40}[|｜]\])"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK"
    r"|MODEL_SETTINGS|BOS|EOS|PAD|UNK|CLS|SEP|MASK)\])"
    r"|◁(?=/?\w{1,20}▷)",
    re.IGNORECASE,
)
"""Role and control tags of the common templates. Some tokenizers read them from plain text and
would take a typed tag for one of the template."""
_BRACKETS = "<>[]{}()|｜◁▷＜＞《》⟨⟩«»"
_WORD = re.compile(r"(?<!\S)\S(?=\S)")
_LINE = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))[\s\u200b-\u200f\u2060\ufeff]*"


def is_tag(token: str) -> bool:
    """Whether a token looks like a mark of a template, and not like a word of the language."""
    return (
        len(token) >= 3 and any(c in _BRACKETS for c in token) and any(c.isalnum() for c in token)
    )


def defuse(text: str, special: Iterable[str]) -> str:
    """`text` with a space inside every `special` token and every tag of the common templates."""
    for token in special:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return _TAGS.sub(lambda match: match[0] + " ", text)


@dataclass(frozen=True, slots=True)
class Headers:
    """The plain texts with which a template opens turns, as patterns that find a typed one."""

    patterns: tuple[re.Pattern[str], ...] = ()
    line_starts: tuple[str, ...] = ()
    """The headers that begin a line in the template."""

    @classmethod
    def between(cls, frames: Sequence[str], tokens: Sequence[str]) -> Headers:
        """The headers in `frames`, the texts that a template writes around the turns.

        `tokens` are the control tokens. Role names beside one, as in `<|im_start|>user`, are no
        headers: nobody can open a turn with the name alone.
        """
        patterns: dict[re.Pattern[str], None] = {}
        starts: dict[str, None] = {}
        longest_first = sorted(tokens, key=len, reverse=True)
        # Tags in angle brackets are broken everywhere, whether they are tokens or not.
        split = re.compile("|".join([*map(re.escape, longest_first), f"<{_ANGLE}"]))
        for frame in frames:
            for i, run in enumerate(split.split(frame)):
                for j, line in enumerate(run.split("\n")):
                    header = line.strip()
                    if any(c.isalnum() for c in header) or len(header) >= 3:
                        begins = j > 0
                        patterns |= dict.fromkeys(_patterns(header, i == 0 or begins, begins))
                        if begins:
                            starts[header] = None
        return cls(tuple(patterns), tuple(starts))

    def broken(self, text: str) -> str:
        """`text` with a space inside each word of each header."""
        for pattern in self.patterns:
            text = pattern.sub(lambda match: match[1] + _WORD.sub(r"\g<0> ", match[2]), text)
        return text


def _patterns(header: str, alone: bool, begins: bool) -> list[re.Pattern[str]]:
    """Patterns with the groups (what stands before the header, the header).

    `alone`: no control token stands before it on its line; `begins`: it begins a line.
    """
    words = r"\s*".join(map(re.escape, header.split()))
    if is_tag(header):
        return [re.compile(f"()({words})", re.IGNORECASE)]
    if all(c.isalnum() or c.isspace() for c in header):
        return [re.compile(rf"({_LINE})({words})(?=\s*(?:\n|\Z))", re.IGNORECASE)] if alone else []
    patterns = [re.compile(f"({_LINE})({words})", re.IGNORECASE)]
    if not begins:
        patterns.append(re.compile(rf"(\s)({words})"))
    return patterns
