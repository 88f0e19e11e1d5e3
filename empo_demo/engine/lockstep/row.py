"""One side of a round in the batch: its prompt, its random numbers, its events, and its text.

Token ids become text step by step: no half character, no part of a stop string, no thought.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request
from empo_demo.engine.text.marks import ALL_THOUGHT, UNMARKED, ThoughtFilter

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


@dataclass(slots=True, eq=False)
class Row:
    """One side of a round in the batch. `out` collects its events until `drain` takes them.

    `luck` holds one uniform random number per token, made from the request's seed. Sides with the
    same seed draw with the same numbers.
    """

    request: Request
    adapter: str | None
    prompt: list[int]
    text: Detokenizer
    started: float = field(default_factory=time.perf_counter)
    produced: list[int] = field(default_factory=list)
    done: bool = False
    out: list[Event] = field(default_factory=list)
    luck: list[float] = field(default_factory=list)
    dropped: int = 0
    """How many of the dialogue's first exchanges the prompt leaves out."""

    def __post_init__(self) -> None:
        generator = random.Random(self.request.seed)
        self.luck = [generator.random() for _ in range(self.request.decoding.max_new_tokens)]

    @property
    def length(self) -> int:
        """How many positions of the cache this row fills. Its last token is not in it yet."""
        return len(self.prompt) + max(0, len(self.produced) - 1)

    @property
    def longest(self) -> int:
        """How many positions of the cache this row can fill at most."""
        return len(self.prompt) + self.request.decoding.max_new_tokens

    @property
    def kind(self) -> tuple[str, float]:
        """What keys and values depend on beside the tokens: the adapter and the dial."""
        if self.adapter is None or self.request.adapter_scale == 0:
            return "", 0.0
        return self.adapter, self.request.adapter_scale

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Add a token. The row ends with an end token, a stop string or its last token."""
        if token in ends:
            self.finish("eos")
            return
        self.produced.append(token)
        self._say(self.text.push(token))
        if self.text.thoughts.stray:
            self.fail(UNMARKED)
        elif self.text.stopped:
            self.finish("stop")
        elif len(self.produced) >= self.request.decoding.max_new_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        if self.done:
            return
        self._say(self.text.flush())
        if self.text.thoughts.stray:
            self.fail(UNMARKED)
            return
        if self.text.thoughts.thought and not self.text.text.strip():
            self.fail(ALL_THOUGHT)
            return
        self.done = True
        elapsed = (time.perf_counter() - self.started) * 1000
        count = len(self.produced)
        self.out.append(
            Finished(self.request.side, reason, self.text.text, count, elapsed, self.dropped)
        )

    def fail(self, error: str) -> None:
        if not self.done:
            self.done = True
            self.out.append(Failed(self.request.side, error))

    def drain(self) -> list[Event]:
        events, self.out = self.out, []
        return events

    def _say(self, text: str) -> None:
        if text:
            self.out.append(Delta(self.request.side, text, self.dropped))
