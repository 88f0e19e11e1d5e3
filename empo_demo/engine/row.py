"""One side being answered: its prompt, its luck, its text so far, and the events it gives."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request
from empo_demo.engine.text import Detokenizer


@dataclass(slots=True, eq=False)
class Row:
    """One side being answered. `out` collects its events until somebody takes them.

    `luck` is one uniform number per token, from the request's seed: the same seed on both sides
    is the same luck on both sides.
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

    def __post_init__(self) -> None:
        generator = random.Random(self.request.seed)
        self.luck = [generator.random() for _ in range(self.request.decoding.max_new_tokens)]

    @property
    def length(self) -> int:
        """Positions of the cache that hold this row; the last token is not in it yet."""
        return len(self.prompt) + max(0, len(self.produced) - 1)

    @property
    def longest(self) -> int:
        """Positions that this row takes at most."""
        return len(self.prompt) + self.request.decoding.max_new_tokens

    @property
    def kind(self) -> tuple[str, float]:
        """What computed this row's keys and values: its adapter, and how far the dial is on."""
        if self.adapter is None or self.request.adapter_scale == 0:
            return "", 0.0
        return self.adapter, self.request.adapter_scale

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Add a token; end the row where it says so."""
        if token in ends:
            self.finish("eos")
            return
        self.produced.append(token)
        self._say(self.text.push(token))
        if self.text.stopped:
            self.finish("stop")
        elif len(self.produced) >= self.request.decoding.max_new_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        if self.done:
            return
        self._say(self.text.flush())
        self.done = True
        elapsed = (time.perf_counter() - self.started) * 1000
        self.out.append(
            Finished(self.request.side, reason, self.text.text, len(self.produced), elapsed)
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
            self.out.append(Delta(self.request.side, text))
