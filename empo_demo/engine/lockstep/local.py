"""Lockstep decoding on one device: several rounds, one batch per copy of the weights.

The rows of a round join together and take their tokens together, so no side is ahead of the other.
There is no worker thread: each thread that waits for events runs the next decode step for all
rounds. So a plain loop over `stream` is enough on a leased GPU. All rounds that wait to join are
read in one prefill. Given replies are scored with one forward pass per batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import torch

from empo_demo.dialogue import Message
from empo_demo.engine.device import is_out_of_memory, on_zero_gpu
from empo_demo.engine.lockstep.batch import Batch, RoundRows, prepare_rows
from empo_demo.engine.lockstep.places import (
    DEFAULT_ROUNDS,
    FairLock,
    Places,
    choose_threads,
    rounds_at_once,
)
from empo_demo.engine.lockstep.row import Row
from empo_demo.engine.lockstep.sampling import check_decoding
from empo_demo.engine.protocol import Event, Interruptible, Request, not_loaded
from empo_demo.engine.text.chat_template import encode_chat, template_of
from empo_demo.engine.weights.model_weights import Weights
from empo_demo.errors import InvalidInput

log = logging.getLogger(__name__)
_BROKEN = "The model broke off with an error; try again."
_FULL = "The device's memory is full; try again with a shorter dialogue, or later."
_GONE = (
    "The GPU stopped working while the model was answering; try again in a minute. "
    "If that does not help, the app must be restarted."
)
_PREFILL_TOKENS = 2048
"""The most prompt tokens of one prefill, so that running rounds do not pause for long."""
_DEFAULT_KV_BYTES, _LEASED_KV_BYTES = 1 << 30, 8 << 30


class LocalEngine:
    """Serves the contenders of a roster from the copies of weights that the loader made.

    At most `max_rounds` rounds run at once; None measures at start which number is fastest.
    `kv_bytes` bounds the KV cache of all copies together, with kept prefixes; rounds wait when it
    is full. By default it is 1 GiB, and on CUDA half of the free memory.
    """

    def __init__(
        self,
        copies: Sequence[Weights],
        notes: dict[str, str],
        *,
        max_rounds: int | None = 4,
        kv_bytes: int | None = None,
    ) -> None:
        if kv_bytes is None:
            kv_bytes = _default_kv_bytes(copies)
        self._batches = [Batch(weights, kv_bytes // len(copies)) for weights in copies]
        for batch in self._batches:
            choose_threads(batch.forward, batch.weights)
        self._notes = notes
        self._turn = FairLock()
        if max_rounds is None:
            # A leased GPU does not exist yet, so it cannot be measured.
            passes = [batch.forward for batch in self._batches]
            max_rounds = DEFAULT_ROUNDS if on_zero_gpu() else rounds_at_once(passes)
        notes["rounds at once"] = str(max_rounds)
        self._places = Places(max_rounds)
        self._running: list[RoundRows] = []
        self._joining: list[RoundRows] = []

    def describe(self) -> dict[str, str]:
        same = "as alone" if self.repeatable else "may differ from alone by rounding"
        return {**self._notes, "replies in company": same}

    @property
    def repeatable(self) -> bool:
        """Whether a reply stays the same when other replies are decoded in the same batch.

        This holds with one CPU thread (small models have one) in NF4, bf16 and fp32. int8 chooses
        its outliers over the whole batch; a GPU, and attention on several threads, add in an order
        that depends on the number of rows.
        """
        return all(batch.weights.repeatable for batch in self._batches)

    def as_read(self, contender: str, texts: Sequence[str]) -> list[str]:
        """Typed `texts` as the contender's model reads them: none opens or ends a turn."""
        tokenizer = self.batch_of(contender).weights.tokenizer
        return [template_of(tokenizer).safe(tokenizer, text) for text in texts]

    def close(self) -> None:
        with self._turn:
            for batch in self._batches:
                batch.clear()

    @property
    def waiting(self) -> int:
        """How many rounds wait for a place in the batch."""
        return self._places.waiting

    def check(self, requests: Sequence[Request]) -> None:
        """Raise if a request's decoding is out of range or its contender is not loaded."""
        for request in requests:
            check_decoding(request.decoding)
            context = self.batch_of(request.contender).weights.context
            if request.decoding.max_new_tokens > context - 16:
                raise InvalidInput(
                    "max_new_tokens is {n}; the context of {name} has {context} tokens, so it may "
                    "be at most {most}.",
                    n=request.decoding.max_new_tokens,
                    name=request.contender,
                    context=context,
                    most=context - 16,
                )

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Yield the events of all `requests` until each has ended; close to stop in one token.

        It can be cut from another thread: in line at once, else in one token.
        """
        self.check(requests)
        given_up = threading.Event()

        def cut() -> None:
            given_up.set()
            self._places.wake()

        return Interruptible(self._stream(requests, given_up), cut)

    def _stream(self, requests: Sequence[Request], given_up: threading.Event) -> Iterator[Event]:
        with self._turn:
            current = prepare_rows(requests, self.batch_of)
        if all(row.done for _, row in current.rows):
            yield from current.drain()
            return

        def claim() -> bool:
            if not self._has_room(current):
                return False
            self._running.append(current)
            return True

        if not self._places.take(claim, given_up.is_set):
            return
        try:
            self._joining.append(current)
            while not current.done and not given_up.is_set():
                with self._turn:
                    # The step of another thread may have made events for this round.
                    events = current.drain()
                    if not events and not current.done:
                        self._advance()
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

        weights = self.batch_of(contender).weights
        with self._turn:
            return score(weights, weights.adapters[contender], pairs, batch)

    def model_of(self, contender: str) -> Weights:
        """The weights that serve a contender, for lm-eval and benchmarks."""
        return self.batch_of(contender).weights

    def batch_of(self, contender: str) -> Batch:
        """The batch that decodes a contender; `EngineError` if the contender is not loaded."""
        for batch in self._batches:
            if contender in batch.weights.adapters:
                return batch
        raise not_loaded(contender, (c for b in self._batches for c in b.weights.adapters))

    def _has_room(self, current: RoundRows) -> bool:
        """Whether the KV cache has room for `current` beside the running rounds."""
        running = [pair for one in [*self._running, current] for pair in one.rows]
        return all(
            batch.fits([row for b, row in running if b is batch and not row.done])
            for batch in {b for b, _ in current.rows}
        )

    def _advance(self) -> None:
        """Prefill waiting rounds, then run one decode step of every batch."""
        joining: dict[Batch, list[Row]] = {}
        tokens = 0
        while self._joining and (not tokens or tokens + self._joining[0].tokens <= _PREFILL_TOKENS):
            current = self._joining.pop(0)
            tokens += current.tokens
            for batch, row in current.rows:
                joining.setdefault(batch, []).append(row)
        for batch, rows in joining.items():
            try:
                batch.join(rows)
            except Exception as error:
                log.exception("Reading the prompts failed")
                self._fail(batch, rows, error)
        for batch in self._batches:
            try:
                batch.step()
            except Exception as error:
                log.exception("A decoding step failed")
                self._fail(batch, batch.rows, error)

    def _fail(self, batch: Batch, rows: Sequence[Row], error: Exception) -> None:
        """End `rows` with `error`. End all rows of the batch if it cannot continue."""
        for row in rows:
            row.fail(_sentence(error))
        try:
            batch.leave()
        except Exception:
            log.exception("The batch cannot go on")
            for row in batch.rows:
                row.fail(_sentence(error))
        if not batch.rows or all(row.done for row in batch.rows):
            # The next round starts with a clean batch.
            batch.clear()

    def _dismiss(self, current: RoundRows) -> None:
        """Remove a closed round from the batches and the lists."""
        self._running.remove(current)
        if current in self._joining:
            self._joining.remove(current)
        for batch, row in current.rows:
            if not row.done:
                row.done = True
                batch.leave()


def _default_kv_bytes(copies: Sequence[Weights]) -> int:
    if copies and copies[0].device.type == "cuda":
        if on_zero_gpu():
            return _LEASED_KV_BYTES
        return int(torch.cuda.mem_get_info(copies[0].device)[0]) // 2
    return _DEFAULT_KV_BYTES


def _sentence(error: Exception) -> str:
    """The sentence that a visitor reads. The log has the whole error."""
    if is_out_of_memory(error):
        return _FULL
    lost = ("CUDA", "device", "cuBLAS", "NCCL", "HIP")
    if isinstance(error, RuntimeError) and any(word in str(error) for word in lost):
        return _GONE
    return _BROKEN


@torch.inference_mode()
def score(
    weights: Weights,
    adapter: str | None,
    pairs: Sequence[tuple[Sequence[Message], str]],
    batch: int,
) -> list[tuple[float, int]]:
    """(sum of log probabilities, number of tokens) of each reply and its end token."""
    if not weights.together:
        # The model's own code may compute a row differently in a batch.
        batch = 1
    rows = [_encode(weights, messages, reply) for messages, reply in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    scores: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        for i, result in zip(part, _score(weights, adapter, [rows[i] for i in part]), strict=True):
            scores[i] = result
    return scores


def _score(
    weights: Weights, adapter: str | None, rows: list[tuple[list[int], int]]
) -> list[tuple[float, int]]:
    width = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long, device=weights.device)
    for i, (ids, _) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
    if weights.rows is not None:
        ones = [1.0] * len(rows)
        weights.rows.assign([adapter] * len(rows), ones, weights.like, [width] * len(rows))
    # With right padding and causal attention, no real token sees the padding.
    logits = weights.model(input_ids=tokens, use_cache=False).logits
    scores = []
    for i, (ids, reply) in enumerate(rows):
        first = len(ids) - reply
        log_p = torch.log_softmax(logits[i, first - 1 : len(ids) - 1].float(), -1)
        picked = log_p.gather(-1, tokens[i, first : len(ids), None])
        scores.append((float(picked.sum()), reply))
    return scores


def _encode(weights: Weights, messages: Sequence[Message], reply: str) -> tuple[list[int], int]:
    """(ids of prompt and reply, number of tokens of the reply with its end token)."""
    prompt = encode_chat(weights.tokenizer, messages)
    ids = weights.tokenizer(reply, add_special_tokens=False)["input_ids"]
    end = weights.tokenizer.eos_token_id
    body = [*ids, end] if end is not None else list(ids)
    kept = prompt[-max(1, weights.context - len(body)) :]
    return [*kept, *body], len(body)
