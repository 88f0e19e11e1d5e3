"""Token ids to a reply, step by step: no half character, no part of a stop string, no thought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from empo_demo.engine.text.thoughts import ThoughtFilter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"


class Detokenizer:
    """The growing text of one reply. `text` is what has been released so far.

    `opened` says that the prompt ends inside a thought, so the reply begins with one. End tokens
    must not be pushed: every token is text, also a special one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: Sequence[str] = (),
        *,
        opened: bool = False,
    ) -> None:
        self.thoughts = ThoughtFilter(opened=opened)
        self._tokenizer, self._stop = tokenizer, tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._start = self._read = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; return the new text that may be shown (often empty)."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        whole = self._decode(self._ids[self._start :])
        if whole.endswith(_REPLACEMENT):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._release(whole[len(before) :], final=False)

    def flush(self) -> str:
        """Return the rest of the text after the last token. An incomplete character is left out."""
        before = self._decode(self._ids[self._start : self._read])
        whole = self._decode(self._ids[self._start :])
        self._start = self._read = len(self._ids)
        return self._release(whole[len(before) :].rstrip(_REPLACEMENT), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        # A stop string in a thought ends nothing.
        ready = self._held + self.thoughts.push(new) + (self.thoughts.flush() if final else "")
        if not self.text:
            ready = ready.lstrip()
        cut = min((i for i in (ready.find(s) for s in self._stop) if i >= 0), default=-1)
        if cut >= 0:
            ready, self._held, self.stopped = ready[:cut], "", True
        else:
            keep = 0 if final else self._tail(ready)
            ready, self._held = ready[: len(ready) - keep], ready[len(ready) - keep :]
        self.text += ready
        return ready

    def _tail(self, text: str) -> int:
        """The length of the longest end of `text` that may be the start of a stop string."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(s.startswith(text[-length:]) for s in self._stop):
                return length
        return 0

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
