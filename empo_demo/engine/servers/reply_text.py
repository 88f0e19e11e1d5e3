"""The text of one reply out of the chunks that a model server sends.

The `openai` library does not check what it reads, so every part of a chunk may be anything.
"""

from __future__ import annotations

import codecs
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk

from empo_demo.engine.text.thoughts import ThoughtFilter

_ASIDE = ("reasoning_content", "reasoning", "thinking")
"""Where servers that tell thoughts from the reply put the thoughts."""


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
                delta: Any = choice.delta
                if delta:
                    parts = _parts(delta.content)
                    added += "".join(p["text"] or "" for p in parts if p["type"] == "text")
                    thinks = any(part["type"] != "text" for part in parts)
                    aside = any(getattr(delta, name, None) for name in _ASIDE)
                    self._silent = self._silent or thinks or aside
                self.reason = str(choice.finish_reason or self.reason)
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


def _parts(content: Any) -> list[dict[str, Any]]:
    """The content of a chunk as parts: most servers send a text, some a list of parts."""
    if isinstance(content, list):
        return [{"type": "text", **part} for part in content]
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content or ""}]
    raise TypeError
