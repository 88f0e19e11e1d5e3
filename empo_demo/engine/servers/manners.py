"""How servers differ: in the names of their models, in what they take, and in the chunks they send.

A model is listed with or without its owner, with a tag (`gemma3:latest`, `…:free`) or a date
(`gpt-4o-2024-08-06`), and may answer under a longer name. Servers name one unwanted field after
the other, and templates differ in the roles that they take; what one reply has learnt of a model
holds for the next ones. The `openai` library does not check what it reads, so every part of a
chunk may be anything.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk

from empo_demo.dialogue import Message
from empo_demo.engine.protocol import Request, Source
from empo_demo.engine.text.chat_template import fold_system
from empo_demo.engine.text.marks import ThoughtFilter, defuse

DECODING = ("temperature", "top_p", "repetition_penalty", "stop", "seed")
"""The fields without which other replies come."""
_WHENEVER = (
    "repetition_penalty",
    "seed",
    "stream_options",
    "chat_template_kwargs",
    "logprobs",
    "top_logprobs",
)
"""Left out as soon as a refusal names them. The other names may stand in any sentence."""
_UNWANTED = re.compile(
    r"unsupported|not support|not permitted|not allowed|not accept|unknown|unrecogni[sz]ed"
    r"|unexpected|extra|forbidden|invalid (?:parameter|argument|field)|deprecated|cannot both"
    r"|max_completion_tokens|(?:must|has to|should) be|only .{0,40}allowed|out of range",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.?(?:length|size|window)|too (?:long|large)|too many .{0,20}tokens"
    r"|maximum .{0,30}(?:length|tokens)|reduce the length|tokens\W+must be",
    re.IGNORECASE,
)
_ROLES = re.compile(
    r"\bsystem\b.{0,80}\b(?:role|message|prompt|instruction)"
    r"|\broles?\b.{0,80}\b(?:system|alternat|support|allow|must|valid|unknown|user)"
    r"|(?:unknown|invalid|unsupported|only).{0,40}\broles?\b|developer instruction"
    r"|(?:first|start|begin)\w*\b.{0,40}\b(?:user|human)\b",
    re.IGNORECASE | re.DOTALL,
)
_PLACE = re.compile(r"""["']loc\\?["']: ?[\[(]([^\])]*)""")
"""Where a list of faults says which field each is about. The rest may repeat the whole request."""
_DATE = re.compile(r"-(\d{4}-\d\d-\d\d|\d\d-\d\d|\d\d-\d{4}|\d{3,4}|\d{6}|\d{8})")
_ASIDE = ("reasoning_content", "reasoning", "thinking")
"""Where servers that tell thoughts from the reply put the thoughts."""


@dataclass
class Manner:
    """How one model of a server has to be asked. `opened`: its replies begin inside a thought."""

    left_out: set[str] = field(default_factory=set)
    tokens: str = "max_tokens"
    """What the server calls the limit of tokens; OpenAI's newer models want another name."""
    folded: bool = False
    opened: bool = False

    def copy(self) -> Manner:
        return replace(self, left_out=set(self.left_out))

    def fields(self, request: Request, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All of the request but the model and the messages, and `more` beside it."""
        decoding = request.decoding
        fields: dict[str, Any] = {
            "stream_options": {"include_usage": True},
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            self.tokens: decoding.max_new_tokens,
            "seed": request.seed % 2**31,
            # Even 1.0 is sent: without it, vLLM takes the value of the model's generation config.
            "repetition_penalty": decoding.repetition_penalty,
            # Each family of templates has its own name for this; the others pass it over.
            "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
        }
        if decoding.stop:
            fields["stop"] = list(decoding.stop)
        fields |= more or {}
        return {name: value for name, value in fields.items() if name not in self.left_out}

    def messages(self, request: Request) -> list[Message]:
        safe = [{**m, "content": defuse(m["content"], ())} for m in request.messages]
        return fold_system(safe) if self.folded else safe

    def simplify(self, sent: Mapping[str, Any], words: str, *, system: bool) -> bool:
        """Leave out what a refusal names; False if it names nothing that can be left out.

        `sent` are the fields of the refused request, `words` the server's. `system` says whether
        the refused messages had a system text.
        """
        places = " ".join(_PLACE.findall(words))
        named = places or words
        unwanted = _UNWANTED.search(words) is not None
        remaining = [
            name
            for name in sent
            if re.search(rf"\b{name}\b", named) and (unwanted or name in _WHENEVER)
        ]
        if "thinking" in named and "chat_template_kwargs" in sent:
            remaining.append("chat_template_kwargs")
        if "max_tokens" in remaining:
            remaining.remove("max_tokens")
            self.tokens = "max_completion_tokens"
            return True
        remaining = [name for name in remaining if name != "max_completion_tokens"]
        self.left_out.update(remaining)
        if remaining or not system or self.folded:
            return bool(remaining)
        self.folded = "role" in places if places else _ROLES.search(words) is not None
        return self.folded


def is_too_long(words: str) -> bool:
    """Whether a refusal says that prompt and reply are more tokens than the model takes."""
    return _TOO_LONG.search(words) is not None and not _PLACE.search(words)


def weights_of(contender: Source) -> str:
    """What generates a contender's replies. Contenders of the same weights answer alike."""
    return contender.adapter or contender.base


def names_of(contender: Source) -> list[str]:
    """The names that a server may have for a contender's weights."""
    source = weights_of(contender)
    return [source, _last(source), contender.id]


def served_name(contender: Source, models: Sequence[str]) -> str | None:
    """The name in `models` of a contender's weights; None if it is not there.

    The tag `latest` may be left out, and an alias finds the newest of its dated names.
    """
    names = [name for name in names_of(contender) if name]
    by_case = {model.casefold(): model for model in models}
    for name in names:
        if name in models:
            return name
    for name in names:
        for form in (name, f"{name}:latest", name.removesuffix(":latest")):
            if form.casefold() in by_case:
                return by_case[form.casefold()]
    for name in names:
        dated = [m for m in models if m.startswith(name) and _DATE.fullmatch(m[len(name) :])]
        if dated:
            return max(dated)
    return None


def is_same(asked: str, answered: str, models: Collection[str], taken: Collection[str]) -> bool:
    """Whether `answered` may be the full name of the model `asked`.

    `models` are the names that the server lists, `taken` those that it has for contenders. A listed
    name is another model, unless only a tag or a date is added.
    """
    if answered == asked:
        return True
    if answered in taken:
        return False
    owner, name, tag = _parts(asked)
    other_owner, other_name, other_tag = _parts(answered)
    if not other_name.startswith(name) or (tag and other_tag and tag != other_tag):
        return False
    rest = other_name[len(name) :]
    if answered in models and owner != other_owner:
        return False
    if not rest or _DATE.fullmatch(rest):
        return True
    return answered not in models and rest[0] in "-@"


def _last(source: str) -> str:
    return re.split(r"[/\\]", source)[-1]


def _parts(model: str) -> tuple[str, str, str]:
    """(owner or folder, name, tag), in lower case."""
    last = _last(model)
    name, _, tag = last.partition(":")
    return model[: len(model) - len(last)].casefold(), name.casefold(), tag.casefold()


class ReplyText:
    """What the chunks of one reply have said so far, without thoughts and NULs.

    `tokens` is the server's count (0 if it gave none), `pieces` that of the chunks with text, and
    `reason` why the reply ended ("" while it has not). `odd`: some part could not be read.
    """

    def __init__(self, *, opened: bool) -> None:
        self.text, self.reason, self.chunks, self.pieces, self.tokens = "", "", 0, 0, 0
        self.odd = False
        self._thoughts = ThoughtFilter(opened=opened)
        self._silent = False
        # A chunk may end between the two halves of a character, which JSON writes as two escapes.
        self._halves = codecs.getincrementaldecoder("utf-16-le")("replace")

    @property
    def all_thought(self) -> bool:
        return not self.text.strip() and (self._silent or self._thoughts.thought)

    @property
    def stray(self) -> bool:
        return self._thoughts.stray

    def push(self, chunk: ChatCompletionChunk) -> str:
        """Take a chunk and return what it adds to the reply; a `ValueError` if it is none."""
        added = ""
        try:
            for choice in chunk.choices or ():
                index = getattr(choice, "index", None)
                if isinstance(index, int | str) and str(index) != "0":
                    continue  # another reply than the first one, which alone was asked for
                delta: Any = choice.delta
                if delta:
                    parts = _content_parts(delta.content)
                    added += "".join(p["text"] or "" for p in parts if p["type"] == "text")
                    thinks = any(part["type"] != "text" for part in parts)
                    aside = any(getattr(delta, name, None) for name in _ASIDE)
                    self._silent = self._silent or thinks or aside
                self.reason = _reason(choice.finish_reason) or self.reason
        except (AttributeError, TypeError, KeyError):
            raise ValueError("its choices have another form") from None
        self.chunks += 1
        self.pieces += bool(added)
        usage = chunk.usage
        self.odd = self.odd or not isinstance(usage, CompletionUsage | None)
        count = getattr(usage, "completion_tokens", None)
        if type(count) is int and 0 < count < 10**7:
            self.tokens = count
        return self._add(self._thoughts.push(self._join(added, final=False)))

    def flush(self) -> str:
        """What is left when nothing more comes."""
        rest = self._thoughts.push(self._join("", final=True))
        return self._add(rest + self._thoughts.flush())

    def _join(self, text: str, *, final: bool) -> str:
        whole = self._halves.decode(text.encode("utf-16-le", "surrogatepass"), final)
        self.odd = self.odd or "\ufffd" in whole
        return whole.replace("\0", "")

    def _add(self, text: str) -> str:
        text = text if self.text else text.lstrip()
        self.text += text
        return text


def _reason(named: Any) -> str:
    """Why a reply ended, without the prefix of Google's names; "" for none."""
    reason = str(named or "")
    return "" if reason.casefold() == "null" else re.sub("(?i)^finish_reason_", "", reason)


def _content_parts(content: Any) -> list[dict[str, Any]]:
    """The content of a chunk as parts: most servers send a text, some a list of parts."""
    if isinstance(content, list):
        return [part for each in content for part in _content_parts(each)]
    if isinstance(content, dict):
        return [{"type": "text", **content}]
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content or ""}]
    raise TypeError
