"""What a server is asked, and how to ask it again when it refuses a part of that.

Servers differ in the fields that they take, and name one unwanted field after the other. Templates
differ in the roles that they take. What one reply has learnt of a model holds for the next ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from empo_demo.dialogue import Message
from empo_demo.engine.protocol import Request
from empo_demo.engine.text.chat_template import fold_system
from empo_demo.engine.text.control_tokens import defuse

DECODING = ("temperature", "top_p", "repetition_penalty", "stop", "seed")
"""The fields without which other replies come."""
_WHENEVER = ("repetition_penalty", "seed", "stream_options", "chat_template_kwargs")
"""Left out as soon as a refusal names them. The other names may stand in any sentence."""
_UNWANTED = re.compile(
    r"unsupported|not support|not permitted|not allowed|not accept|unknown|unrecogni[sz]ed"
    r"|unexpected|extra|forbidden|invalid (?:parameter|argument|field)|deprecated|cannot both"
    r"|max_completion_tokens",
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
    r"|(?:unknown|invalid|unsupported|only).{0,40}\broles?\b|developer instruction",
    re.IGNORECASE | re.DOTALL,
)
_PLACE = re.compile(r"""["']loc\\?["']: ?[\[(]([^\])]*)""")
"""Where a list of faults says which field each is about. The rest may repeat the whole request."""


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

    def fields(self, request: Request) -> dict[str, Any]:
        """All of the request but the model and the messages."""
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
        found = [
            name
            for name in sent
            if re.search(rf"\b{name}\b", named) and (unwanted or name in _WHENEVER)
        ]
        if "thinking" in named and "chat_template_kwargs" in sent:
            found.append("chat_template_kwargs")
        if "max_tokens" in found:
            found.remove("max_tokens")
            self.tokens = "max_completion_tokens"
            return True
        found = [name for name in found if name != "max_completion_tokens"]
        self.left_out.update(found)
        if found or not system or self.folded:
            return bool(found)
        self.folded = "role" in places if places else _ROLES.search(words) is not None
        return self.folded


def is_too_long(words: str) -> bool:
    """Whether a refusal says that prompt and reply are more tokens than the model takes."""
    return _TOO_LONG.search(words) is not None and not _PLACE.search(words)
