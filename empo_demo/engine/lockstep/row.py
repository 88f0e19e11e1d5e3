"""One side of a round in the batch: its prompt, its random numbers, its text and its events."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request
from empo_demo.engine.text.detokenizer import Detokenizer
from empo_demo.engine.text.thoughts import ALL_THOUGHT, UNMARKED


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
