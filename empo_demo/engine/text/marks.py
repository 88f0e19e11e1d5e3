"""The marks of turns and thoughts: typed ones are broken, and marked thoughts kept out of a reply.

A space goes into every control token and every role header that a person typed: into tokens of the
tokenizer, into the tags of the common templates, and into a template's own headers
(`### Response:`, `USER:`) where a line begins with one. People see their text unchanged.

Models mark their thoughts in many ways: `<think>…</think>` and its like, `[THINK]…[/THINK]`,
`<|START_THINKING|>…<|END_THINKING|>`, and the channels of GPT-OSS, of which only `final` is a
reply. A thought may be opened by the prompt, and may never be closed. Where a server leaves out
special tokens, the names of the channels stay: `analysisThe user is sad.assistantfinalI am sorry.`
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

        `tokens` are the control tokens. Role names beside one, as in `<|im_start|>user`, are not
        headers: nobody can open a turn with the name alone.
        """
        patterns: dict[re.Pattern[str], None] = {}
        starts: dict[str, None] = {}
        longest_first = sorted(tokens, key=len, reverse=True)
        # Tags in angle brackets are broken everywhere, whether they are tokens or not.
        split = re.compile("|".join([*map(re.escape, longest_first), f"<{_ANGLE}"]))
        for frame in frames:
            # The text of a turn may follow its header on the same line, after a space or a tab.
            goes_on = frame != frame.rstrip(" \t")
            for i, run in enumerate(split.split(frame)):
                for j, line in enumerate(run.split("\n")):
                    header = line.strip()
                    if any(c.isalnum() for c in header) or len(header) >= 3:
                        begins = j > 0
                        found = _patterns(header, i == 0 or begins, begins, goes_on)
                        patterns |= dict.fromkeys(found)
                        if begins:
                            starts[header] = None
        return cls(tuple(patterns), tuple(starts))

    def broken(self, text: str) -> str:
        """`text` with a space inside each word of each header."""
        for pattern in self.patterns:
            text = pattern.sub(lambda match: match[1] + _WORD.sub(r"\g<0> ", match[2]), text)
        return text


def _patterns(header: str, alone: bool, begins: bool, goes_on: bool) -> list[re.Pattern[str]]:
    """Patterns with the groups (what stands before the header, the header).

    `alone`: no control token stands before it on its line; `begins`: it begins a line; `goes_on`:
    a text may follow it on its line.
    """
    words = r"\s*".join(map(re.escape, header.split()))
    if is_tag(header):
        return [re.compile(f"()({words})", re.IGNORECASE)]
    if all(c.isalnum() or c.isspace() for c in header):
        after = r"(?=\s|\Z)" if goes_on else r"(?=\s*(?:\n|\Z))"
        return [re.compile(f"({_LINE})({words}){after}", re.IGNORECASE)] if alone else []
    patterns = [re.compile(f"({_LINE})({words})", re.IGNORECASE)]
    if not begins:
        patterns.append(re.compile(rf"(\s)({words})"))
    return patterns


ALL_THOUGHT = (
    "The model used up its tokens on thinking; who runs this app can raise max_new_tokens, or "
    "serve a model that answers without thinking."
)
"""What a side fails with whose reply was all thought."""
UNMARKED = (
    "The model's thoughts came without a mark at their beginning, so they cannot be told from its "
    "reply; who runs this app can save a chat template that opens them, or switch thinking off."
)
"""What a side fails with that closed a thought which nobody had opened."""
_NAME = (
    r"(?:\w{1,20}[:_])?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|cot"
    r"|(?:inner|internal)_(?:monologue|thoughts?))"
)
_OWN = r"(?:start|begin|end)[_▁](?:of[_▁])?(?:think|thinking|thought|reasoning)"
_BAR = r"[|｜]?"
_CAPITAL = r"(?-i:(?=\s?(?:[A-Z\"“'‘(*<]|[^\x00-\x7f])))"
"""A text begins here. No sentence has the name of a channel right before it."""
_MARK = re.compile(
    rf"<{_BAR}(?P<word>{_OWN}){_BAR}>"
    rf"|<{_BAR}(?P<end>/?)(?P<name>{_NAME}){_BAR}>"
    r"|\[(?P<end2>/?)(?P<name2>(?-i:THINK|THINKING|REASONING))\]"
    r"|◁(?P<end3>/?)(?P<name3>think)▷"
    rf"|<{_BAR}(?P<place>(?:think|thinking|thought|reasoning)[_▁](?:start|begin|end)){_BAR}>"
    r"|(?P<odd><\|inner_(?:prefix|suffix)\|>|<unused9[45]>|<\|channel>|<channel\|>)"
    r"|<\|(?P<harmony>start|channel|message|end|return|call)\|>"
    rf"|(?-i:assistant(?P<bare>final|analysis|commentary)){_CAPITAL}"
    rf"|(?P<wrap></?(?:answer|response|output)>"
    rf"|<{_BAR}(?:start|begin|end)[_▁](?:of[_▁])?(?:response|solution|answer){_BAR}>)",
    re.IGNORECASE,
)
_ODD = {
    "<|inner_prefix|>": ("inner", True),
    "<|inner_suffix|>": ("inner", False),
    "<unused94>": ("unused", True),
    "<unused95>": ("unused", False),
    "<|channel>": ("channel>", True),
    "<channel|>": ("channel>", False),
}
"""Marks that do not say what they are: of Apertus, MedGemma and Gemma 4."""
_HALF = re.compile(r"(?:<[|｜]?/?[\w:▁]{0,40}[|｜]?|\[/?[A-Z]{0,9}|◁/?\w{0,5})\Z")
"""The end of a text that may be the beginning of a mark."""
_BARE_START = re.compile(
    rf"\s*(?:assistant)?(?:(?P<thought>analysis|commentary)|final(?!\x20)){_CAPITAL}"
)
"""The name of a channel at the beginning of a reply."""
_NAMES = [
    role + channel for role in ("assistant", "") for channel in ("analysis", "commentary", "final")
]
_BEGUN = "|".join(
    sorted({name[:n] for name in _NAMES[:3] for n in range(1, len(name) + 1)}, key=len)[::-1]
)
_BARE_HALF = re.compile(rf"(?:{_BEGUN})\s?\Z")
_BARE_HALF_AFTER = re.compile(rf"(?<=[^\w\s])(?:{_BEGUN})\s?\Z")
"""The end of a text that may be the beginning of such a name, in a thought and in a reply."""
_SPOKEN = {"", "assistant", "final", "response"}
"""The channels of GPT-OSS that are the reply. `assistant` is a header without a channel."""
_ANY, _HEADER, _CHANNEL, _BARE = "any", "header", "channel", "bare"


class ThoughtFilter:
    """One reply as a stream: `push` each piece, then `flush`; both return what may be shown.

    `opened`: whether the prompt itself has opened a thought (see `opens_thought`), so that the
    reply begins inside it. `thought` says whether anything was kept out. `stray` says that a
    thought was closed which nobody opened: what was shown before it was a thought, so the side
    must fail, and the model's next replies need `opened`.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self.thought = opened
        self.stray = False
        self._inside = _ANY if opened else ""
        """The kind of thought that the text is in; "" in the reply."""
        self._closed = self._said = False
        self._held = self._header = ""
        self._begun = opened

    def push(self, text: str) -> str:
        """Take the next piece; return the part of the reply that is now known to be one."""
        return self._read(text, final=False)

    def flush(self) -> str:
        """The rest of the reply, when nothing more comes."""
        return self._read("", final=True)

    def _read(self, text: str, *, final: bool) -> str:
        text = self._begin(self._held + text, final=final)
        bare = _BARE_HALF if self._inside in (_BARE, _ANY) else _BARE_HALF_AFTER
        half = None if final else _HALF.search(text) or bare.search(text)
        if self._begun:
            text, self._held = (text[: half.start()], half[0]) if half else (text, "")
        shown, at = "", 0
        for mark in _MARK.finditer(text):
            shown += self._take(text[at : mark.start()]) + self._turn(mark)
            at = mark.end()
        return shown + self._take(text[at:])

    def _begin(self, text: str, *, final: bool) -> str:
        """`text` without the name of a channel at its beginning; "" while it may be one."""
        if self._begun:
            return text
        start, lead = _BARE_START.match(text), text.strip()
        if start is None and not final and any(name.startswith(lead) for name in _NAMES):
            self._held = text
            return ""
        self._begun = True
        if start is None:
            return text
        if start["thought"]:
            self._open(_BARE)
        return text[start.end() :]

    def _take(self, text: str) -> str:
        if self._inside == _HEADER:
            self._header += text
        if self._inside:
            return ""
        self._said = self._said or bool(text.strip())
        return text

    def _turn(self, mark: re.Match[str]) -> str:
        """Follow a mark; return it where it is plain text."""
        if mark["harmony"]:
            self._follow_harmony(mark["harmony"].lower())
        elif mark["bare"]:
            self._follow_bare(mark["bare"])
        elif mark["wrap"]:
            if not self._inside and not self.thought and mark["wrap"][1] not in "|｜":
                return self._take(mark[0])
        else:
            name, opens = _meaning(mark)
            if opens and not self._inside:
                self._open(name)
            elif not opens and self._inside in (name, _ANY):
                self._inside, self._closed = "", True
            elif not opens and not self._inside:
                self.thought = True
                self.stray = self.stray or (self._said and not self._closed)
        return ""

    def _open(self, kind: str) -> None:
        self._inside, self.thought, self._header = kind, True, ""

    def _follow_harmony(self, word: str) -> None:
        """GPT-OSS: <|start|>assistant<|channel|>analysis<|message|>…<|end|>"""
        if word in ("start", "channel"):
            if self._inside in ("", _ANY, _HEADER, _CHANNEL, _BARE):
                self._open(_HEADER)
        elif word == "message":
            if self._inside == _HEADER:
                channel = (self._header.split() or [""])[0].lower()
                self._inside = "" if channel in _SPOKEN else _CHANNEL
                self._closed = True
        elif self._inside == _CHANNEL:
            self._inside = _HEADER

    def _follow_bare(self, channel: str) -> None:
        """GPT-OSS without its special tokens: analysis…assistantfinal…"""
        if channel == "final" and self._inside in ("", _ANY, _BARE):
            if not self._inside:
                self.stray = self.stray or (self._said and not self._closed)
            self._inside, self.thought, self._closed = "", True, True
        elif not self._inside:
            self._open(_BARE)


def spoken(text: str) -> str:
    """The reply in the whole `text` of a model, stripped: "" if all of it was thought.

    What stands before a closing mark that nobody opened is a thought, too.
    """
    for begins_inside in (False, True):
        stream = ThoughtFilter(opened=begins_inside)
        shown = stream.push(text) + stream.flush()
        if not stream.stray:
            break
    return shown.strip()


def is_mark(token: str, *, channels: bool) -> bool:
    """Whether `token` marks a thought, and so ends no reply.

    `channels`: whether the model writes in the channels of GPT-OSS, so that `<|end|>` ends one.
    """
    mark = _MARK.fullmatch(token)
    return mark is not None and (channels or not mark["harmony"])


def opens_thought(prompt: str) -> bool:
    """Whether `prompt`, which ends where the model goes on, ends inside a thought.

    A mark in what people said is broken before it is read, so every mark is the template's.
    """
    inside = False
    for mark in _MARK.finditer(prompt):
        if not mark["harmony"] and not mark["wrap"] and not mark["bare"]:
            inside = _meaning(mark)[1]
    return inside


def _meaning(mark: re.Match[str]) -> tuple[str, bool]:
    """(kind of the thought, whether the mark opens it)."""
    if mark["odd"]:
        return _ODD[mark["odd"].lower()]
    word = (mark["word"] or mark["place"] or "").lower().replace("▁", "_")
    if word:
        return "marked", "end" not in word.split("_")
    name = mark["name"] or mark["name2"] or mark["name3"]
    return name.lower(), not (mark["end"] or mark["end2"] or mark["end3"])
