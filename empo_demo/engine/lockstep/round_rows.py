"""The rows of one round, made from its requests; those that cannot be answered fail at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from empo_demo.engine.lockstep.batch import Batch
from empo_demo.engine.lockstep.row import Row
from empo_demo.engine.protocol import Event, Request
from empo_demo.engine.text.chat import dropped_exchanges

log = logging.getLogger(__name__)
_NO_DIAL = "This contender's adapter is merged into its weights, so the dial can only stand at 1."
_TOO_LONG = (
    "The message is too long for the model: {0:,} tokens, and it can read {1:,} beside a reply of "
    "{2:,}. Shorten the message, or the reply."
)
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

    Cutting the message would be worse: people would vote on replies to half of it.
    """
    for batch, row in current.rows:
        room = batch.weights.context - row.request.decoding.max_new_tokens
        if len(row.prompt) <= room:
            continue
        sentence = _TOO_LONG.format(len(row.prompt), room, row.request.decoding.max_new_tokens)
        for _, side in current.rows:
            if side.request.round == row.request.round:
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
