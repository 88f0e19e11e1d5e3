"""The lockstep batch: rows join, take one token each per decode step, and leave.

Slot i of the KV cache belongs to row i, and rows are sorted by adapter. The tokens of a row depend
only on its own prompt, seed and decoding, except where rounding breaks this (see
`Weights.repeatable`). A batch belongs to one copy of the weights, and one thread at a time may use
it. The numbers are computed in `forward`.

The rows of one round may be in several batches. Those that cannot be answered fail at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from empo_demo.engine.lockstep.forward import few_threads
from empo_demo.engine.lockstep.own_passes import passes_of
from empo_demo.engine.lockstep.row import Detokenizer, Row
from empo_demo.engine.lockstep.sampling import Draw, Sampler
from empo_demo.engine.protocol import Event, Request
from empo_demo.engine.text.chat_template import dropped_exchanges, read_chat
from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)
NO_NUMBERS = (
    "The model computed no numbers (NaN) for this dialogue; try another one. "
    "If it happens again, load the model with EMPO_QUANTIZATION=none or on another device."
)
Move = tuple[int, int, int]
"""Copy a row from slot to slot: (source, target, positions)."""


_NO_DIAL = "This contender's adapter is merged into its weights, so the dial can only stand at 1."
_TOO_LONG = (
    "The message is too long for the model: {0:,} tokens, and it can read {1:,} beside a reply of "
    "{2:,}. Shorten the message, or the reply."
)


class Batch:
    """The rows that decode together on one copy of the weights.

    `kv_bytes` bounds the KV cache. A quarter of it keeps the prefixes of earlier prompts.
    """

    def __init__(self, weights: Weights, kv_bytes: int) -> None:
        self.weights = weights
        self.rows: list[Row] = []
        self.kv_bound = kv_bytes - kv_bytes // 4
        self.forward = passes_of(weights, kv_bytes)
        self._sampler: Sampler | None = None
        self._last = torch.zeros(0, dtype=torch.long)

    def prepare(self, request: Request, dropped: int = 0) -> Row:
        """A row for `request`. Its prompt leaves out the first `dropped` exchanges."""
        weights = self.weights
        prompt = read_chat(weights.tokenizer, request.messages, dropped)
        stops = (*request.decoding.stop, *weights.stops)
        return Row(
            request=request,
            adapter=weights.adapters[request.contender],
            prompt=prompt.ids,
            text=Detokenizer(weights.tokenizer, stops, opened=prompt.opened),
            dropped=dropped,
        )

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether the KV cache has room for the longest possible replies of all `rows`."""
        return self.bytes_of(rows) <= self.kv_bound

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes of KV cache that the longest possible replies of `rows` take."""
        longest = max((row.longest for row in rows), default=0)
        return self.forward.bytes_of(len(rows), longest)

    @torch.inference_mode()
    def join(self, new: Sequence[Row]) -> None:
        """Prefill the prompts of `new` together and add these rows to the running batch."""
        new = [row for row in new if not row.done]
        if not new:
            return
        if self.weights.device != self.forward.device:
            # A leased device came after the start.
            self.clear()
        now = time.perf_counter()
        last = dict(zip(self.rows, self._last, strict=True))
        everyone = [*self.rows, *new]
        longest = max(row.longest for row in everyone)
        self.forward.reserve(len(everyone), longest)
        self.rows = self._regroup(self.rows, new)
        spare = torch.zeros((), dtype=torch.long, device=self.weights.device)
        self._last = torch.stack([last.get(row, spare) for row in self.rows])
        slots = {row: i for i, row in enumerate(self.rows)}
        new = sorted(new, key=slots.__getitem__)
        with few_threads(self.weights.threads):
            logits = self.forward.prefill(new, [slots[row] for row in new])
            tokens = self._draw(new, self._sampler_of(new), logits)
            for row in new:
                row.started = now
                if not row.done:
                    self.forward.keep(row, slots[row])
        last |= dict(zip(new, tokens, strict=True))
        self._last = torch.stack([last[row] for row in self.rows])
        self._settle()
        self.leave()

    @torch.inference_mode()
    def step(self) -> None:
        """Run one decode step: one token for every row. Rows that end leave the batch."""
        if not self.rows or self._sampler is None:
            return
        rows = self.rows
        with few_threads(self.weights.threads_of(len(rows))):
            logits = self.forward.decode(rows, self._last)
            self._last = self._draw(rows, self._sampler, logits)
        self.leave()

    @torch.inference_mode()
    def leave(self) -> None:
        """Remove the rows that are done and close their gaps in the cache."""
        staying = [row for row in self.rows if not row.done]
        if len(staying) == len(self.rows):
            return
        last = dict(zip(self.rows, self._last, strict=True))
        self.rows = self._regroup(staying, [])
        if not self.rows:
            self._sampler, self._last = None, self._last[:0]
            return
        self._last = torch.stack([last[row] for row in self.rows])
        self._settle()

    def clear(self) -> None:
        """Drop all rows, graphs and prefixes, so that an error cannot affect the next round."""
        self.rows = []
        self.forward = self.forward.renewed()
        self._sampler, self._last = None, torch.zeros(0, dtype=torch.long)

    def _regroup(self, old: list[Row], new: Sequence[Row]) -> list[Row]:
        """The rows in the order of their new slots; moves them in the cache."""
        rows, moves = regroup(self.rows, old, new)
        for source, target, length in moves:
            self.forward.move(source, target, length)
        return rows

    def _settle(self) -> None:
        """Update what a decode step needs. It changes only when rows join or leave."""
        self.forward.settle(self.rows)
        self._sampler = self._sampler_of(self.rows)

    def _sampler_of(self, rows: Sequence[Row]) -> Sampler:
        draws = [
            Draw(row.request.decoding, row.luck[len(row.produced) :], (*row.prompt, *row.produced))
            for row in rows
        ]
        return Sampler(draws, self.weights.vocabulary, self.weights.device)

    def _draw(self, rows: Sequence[Row], sampler: Sampler, logits: torch.Tensor) -> torch.Tensor:
        """Draw the next token of each row and add it to the row; return all tokens (rows,)."""
        tokens, read, broken = sampler.draw(logits)
        for i, row in enumerate(rows):
            if row.done:
                continue
            if broken[i]:
                log.error("Logits of %s are not numbers", row.request.contender)
                row.fail(NO_NUMBERS)
                self.forward.wipe(self.rows.index(row))
            else:
                row.take(read[i], self.weights.ends)
        return tokens.view(-1)


def regroup(
    before: Sequence[Row], staying: Sequence[Row], new: Sequence[Row]
) -> tuple[list[Row], list[Move]]:
    """The rows in the order of their slots, sorted by adapter, and the moves in the cache.

    `before` are the rows by slot until now. As few rows move as possible. When rows join, the
    groups of adapters are placed from the last to the first; when rows leave, from the first to
    the last. So no row is moved to a slot that another row still needs.
    """
    slot = {row: i for i, row in enumerate(before)}
    names = sorted({row.adapter or "" for row in [*staying, *new]})
    placed: list[Row | None] = [None] * (len(staying) + len(new))
    moves: list[Move] = []
    bounds, low = {}, 0
    for name in names:
        size = sum((row.adapter or "") == name for row in [*staying, *new])
        bounds[name], low = (low, low + size), low + size
    for name in reversed(names) if new else names:
        low, high = bounds[name]
        mine = [row for row in staying if (row.adapter or "") == name]
        for row in mine:
            if low <= slot[row] < high:
                placed[slot[row]] = row
        free = iter([i for i in range(low, high) if placed[i] is None])
        for row in mine:
            if not low <= slot[row] < high:
                target = next(free)
                placed[target] = row
                moves.append((slot[row], target, row.length))
        # Attention reads neighbouring rows of like length in one call.
        for row in sorted(new, key=lambda row: len(row.prompt)):
            if (row.adapter or "") == name:
                placed[next(free)] = row
    return cast("list[Row]", placed), moves


BatchOf = Callable[[str], Batch]
"""The batch that decodes a contender."""


@dataclass(eq=False)
class RoundRows:
    """The rows of one `stream` call, and the batch that each belongs to."""

    rows: list[tuple[Batch, Row]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(row.done for _, row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(len(row.prompt) for _, row in self.rows)

    def drain(self) -> list[Event]:
        return [event for _, row in self.rows for event in row.drain()]


def prepare_rows(requests: Sequence[Request], batch_of: BatchOf) -> RoundRows:
    """The rows of a round. Rows that cannot be answered have already failed."""
    current = RoundRows()
    dropped = _dropped(requests, batch_of)
    for request in requests:
        batch = batch_of(request.contender)
        row = batch.prepare(request, dropped[request.round])
        if batch.weights.rows is None and request.adapter_scale != 1.0:
            row.fail(_NO_DIAL)
        current.rows.append((batch, row))
    _refuse_too_long(current)
    for batch in {batch for batch, _ in current.rows}:
        rows = [row for b, row in current.rows if b is batch]
        needed = batch.bytes_of(rows)
        if needed > batch.kv_bound:
            for row in rows:
                row.fail(
                    f"These replies need {needed / 1e6:.0f} MB of KV cache, and there are "
                    f"{batch.kv_bound / 1e6:.0f} MB; shorten the dialogue or the reply."
                )
    return current


def _refuse_too_long(current: RoundRows) -> None:
    """End all sides of a round whose last message is longer than the context of one of them.

    Cutting the message would be worse: people would vote on replies to half of it. Who asks several
    dialogues at once without naming rounds loses only the one that is too long.
    """
    for batch, row in current.rows:
        room = batch.weights.context - row.request.decoding.max_new_tokens
        if len(row.prompt) <= room:
            continue
        sentence = _TOO_LONG.format(len(row.prompt), room, row.request.decoding.max_new_tokens)
        asked = row.request
        for _, side in current.rows:
            if (side.request.round, side.request.messages[-1]) == (asked.round, asked.messages[-1]):
                side.fail(sentence)


def _dropped(requests: Sequence[Request], batch_of: BatchOf) -> dict[str, int]:
    """How many of the oldest exchanges the prompts of each round leave out.

    All sides of a round see the same history. One round does not change another.
    """
    dropped: dict[str, int] = {}
    for request in requests:
        weights = batch_of(request.contender).weights
        limit = min(weights.context, weights.trained) - request.decoding.max_new_tokens
        count = dropped_exchanges(weights.tokenizer, request.messages, max(16, limit))
        dropped[request.round] = max(count, dropped.get(request.round, 0))
    for count in filter(None, dropped.values()):
        log.info("A dialogue is too long for a model; %d exchanges are left out", count)
    return dropped
