"""Lockstep decoding on one device: several rounds, one batch per copy of the weights.

A round's rows join together and take their tokens together, so no side runs ahead of the other.
Whoever waits for events drives the batch: there is no worker thread, and a plain loop over
`stream` is all that a GPU lease needs. Rounds of other threads ride along in the same steps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch

from empo_demo.dialogue import Message
from empo_demo.engine.batch import Batch, Row
from empo_demo.engine.chat import dropped_exchanges
from empo_demo.engine.places import Places
from empo_demo.engine.protocol import Event, Request
from empo_demo.engine.sampling import check_decoding
from empo_demo.engine.weights import Weights
from empo_demo.errors import EngineError

log = logging.getLogger(__name__)
_BROKEN = "The model broke off with an error; try again."
_FULL = "The device's memory is full; try again with a shorter dialogue, or later."
_NO_DIAL = "This contender's adapter is merged into its weights, so the dial can only stand at 1."


@dataclass(eq=False)
class _Round:
    """The rows of one `stream` call, and the batch that each belongs to."""

    rows: list[tuple[Batch, Row]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(row.done for _, row in self.rows)

    def drain(self) -> list[Event]:
        return [event for _, row in self.rows for event in row.drain()]


class LocalEngine:
    """Serves the contenders of a roster from the copies of weights that the loader made."""

    def __init__(
        self, copies: Sequence[Weights], notes: dict[str, str], *, max_rounds: int = 4
    ) -> None:
        self._batches = [Batch(weights) for weights in copies]
        self._notes = notes
        self._turn = threading.Lock()
        self._places = Places(max_rounds)
        self._tickets: WeakKeyDictionary[Iterator[Event], object] = WeakKeyDictionary()

    def describe(self) -> dict[str, str]:
        return dict(self._notes)

    def close(self) -> None:
        with self._turn:
            for batch in self._batches:
                batch.clear()

    @property
    def waiting(self) -> int:
        """How many rounds wait for a place in the batch."""
        return self._places.waiting

    def queue_position(self, stream: Iterator[Event]) -> int:
        """How many rounds `stream`, which `self.stream` returned, waits for; 0 once it runs."""
        return self._places.position(self._tickets.get(stream))

    def check(self, requests: Sequence[Request]) -> None:
        """Raise on decoding out of range and on contenders that are not loaded."""
        for request in requests:
            check_decoding(request.decoding)
            self.batch_of(request.contender)

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Events of all `requests` until each has ended; close to stop within one token."""
        self.check(requests)
        ticket = object()
        stream = self._stream(requests, ticket)
        self._tickets[stream] = ticket
        return stream

    def _stream(self, requests: Sequence[Request], ticket: object) -> Iterator[Event]:
        self._places.take(ticket)
        current = _Round()
        try:
            with self._turn:
                self._join(current, requests)
            yield from current.drain()
            while not current.done:
                with self._turn:
                    # Another thread's step may have brought this round forward meanwhile.
                    events = current.drain()
                    if not events and not current.done:
                        self._step()
                        events = current.drain()
                yield from events
            yield from current.drain()
        finally:
            with self._turn:
                self._dismiss(current)
            self._places.give_back()

    def score(
        self, contender: str, pairs: Sequence[tuple[Sequence[Message], str]], *, batch: int = 16
    ) -> list[tuple[float, int]]:
        """(sum of log probabilities, tokens) of each reply after its messages.

        Natural logarithm; the end-of-sequence token is counted. Perplexity is
        `exp(-sum / tokens)`.
        """
        from empo_demo.engine.scoring import score

        weights = self.batch_of(contender).weights
        with self._turn:
            return score(weights, weights.adapters[contender], pairs, batch)

    def model_of(self, contender: str) -> Weights:
        """The very weights that serve a contender, for lm-eval and benchmarks."""
        return self.batch_of(contender).weights

    def batch_of(self, contender: str) -> Batch:
        """The batch in which a contender's rows run; `EngineError` where it is not loaded."""
        for batch in self._batches:
            if contender in batch.weights.adapters:
                return batch
        known = ", ".join(c for batch in self._batches for c in batch.weights.adapters)
        raise EngineError(f"The contender {contender!r} is not loaded; there are: {known}.")

    def _join(self, current: _Round, requests: Sequence[Request]) -> None:
        joining: dict[Batch, list[Row]] = {}
        dropped = self._dropped(requests)
        for request in requests:
            batch = self.batch_of(request.contender)
            row = batch.prepare(request, dropped[request.round])
            if batch.weights.rows is None and request.adapter_scale != 1.0:
                row.fail(_NO_DIAL)
            current.rows.append((batch, row))
            if not row.done:
                joining.setdefault(batch, []).append(row)
        for batch, rows in joining.items():
            try:
                new = batch.prefill(rows)
            except Exception as error:
                log.exception("Reading the prompts failed")
                for row in rows:
                    row.fail(_sentence(error))
                continue
            try:
                batch.admit(new)
            except Exception as error:
                log.exception("Joining failed")
                self._fail(batch, rows, error)

    def _dropped(self, requests: Sequence[Request]) -> dict[str, int]:
        """The oldest exchanges that all sides of a round go without, by round.

        All sides of a round see the same history; other rounds of the call are not touched.
        """
        dropped: dict[str, int] = {}
        for request in requests:
            weights = self.batch_of(request.contender).weights
            limit = min(weights.context, weights.trained) - request.decoding.max_new_tokens
            count = dropped_exchanges(weights.tokenizer, request.messages, max(16, limit))
            dropped[request.round] = max(count, dropped.get(request.round, 0))
        for count in filter(None, dropped.values()):
            log.info("A dialogue is too long for a model; %d exchanges are left out", count)
        return dropped

    def _step(self) -> None:
        """One token for every row of every batch: all sides of all rounds in step."""
        for batch in self._batches:
            try:
                batch.step()
            except Exception as error:
                log.exception("A decoding step failed")
                self._fail(batch, [], error)

    def _fail(self, batch: Batch, rows: list[Row], error: Exception) -> None:
        """End all that was in `batch`; the next round starts from a clean one."""
        for row in [*batch.rows, *rows]:
            row.fail(_sentence(error))
        batch.clear()

    def _dismiss(self, current: _Round) -> None:
        """Take what is left of a closed round out of the batches."""
        for batch, row in current.rows:
            if not row.done:
                row.done = True
                batch.leave()


def _sentence(error: Exception) -> str:
    """What a visitor is told; the log has the rest."""
    return _FULL if isinstance(error, (torch.OutOfMemoryError, MemoryError)) else _BROKEN
