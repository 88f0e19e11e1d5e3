"""The lockstep batch: rows join, take one token each per decode step, and leave.

The batch owns the slots of the KV cache: slot i belongs to row i, and rows are sorted by adapter.
The tokens of a row depend only on its own prompt, seed and decoding, except where rounding breaks
this (see `Weights.repeatable`). A batch belongs to one copy of the weights, and one thread at a
time may use it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch

from empo_demo.engine.attention import Decode, Prefill, looked_at, use_cached_attention
from empo_demo.engine.chat import encode_chat
from empo_demo.engine.detokenizer import Detokenizer
from empo_demo.engine.graphs import StepGraphs
from empo_demo.engine.kv_cache import KVCache, Prefixes, bytes_per_token, cache_dtype
from empo_demo.engine.packed import pack
from empo_demo.engine.protocol import Request
from empo_demo.engine.regroup import regroup
from empo_demo.engine.row import Row
from empo_demo.engine.sampling import Draw, Sampler
from empo_demo.engine.weights import Weights

log = logging.getLogger(__name__)
NO_NUMBERS = (
    "The model computed no numbers (NaN) for this dialogue; try another one. "
    "If it happens again, load the model with EMPO_QUANTIZATION=none or on another device."
)


class Batch:
    """The rows that decode together on one copy of the weights.

    `kv_bytes` bounds the KV cache. A quarter of it keeps the prefixes of earlier prompts.
    """

    def __init__(self, weights: Weights, kv_bytes: int) -> None:
        use_cached_attention(weights.model)
        pack(weights)
        self.weights = weights
        self.rows: list[Row] = []
        self.prefixes = Prefixes(kv_bytes // 4)
        self._bound = kv_bytes - kv_bytes // 4
        self._start()

    def _start(self) -> None:
        """Make the batch empty, on the device of the weights. A leased device may come later."""
        self._device = self.weights.device
        self._least = _least(self.weights)
        self._cache = self._new_cache()
        self._graphs = StepGraphs(self._device)
        self._sampler: Sampler | None = None
        self._slots = self._places = self._last = torch.zeros(0, dtype=torch.long)

    def prepare(self, request: Request, dropped: int = 0) -> Row:
        """A row for `request`. Its prompt leaves out the first `dropped` exchanges."""
        weights = self.weights
        return Row(
            request=request,
            adapter=weights.adapters[request.contender],
            prompt=encode_chat(weights.tokenizer, request.messages, dropped),
            text=Detokenizer(weights.tokenizer, (*request.decoding.stop, *weights.stops)),
            dropped=dropped,
        )

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether the KV cache has room for the longest possible replies of all `rows`."""
        return self.bytes_of(rows) <= self._bound

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes of KV cache that the longest possible replies of `rows` take."""
        longest = max((row.longest for row in rows), default=0)
        return self._cache.bytes_of(self._padded(len(rows)), longest)

    @property
    def kv_bound(self) -> int:
        """Bytes that the KV cache of running rows may take."""
        return self._bound

    @torch.inference_mode()
    def join(self, new: Sequence[Row]) -> None:
        """Prefill the prompts of `new` together and add these rows to the running batch."""
        new = [row for row in new if not row.done]
        if not new:
            return
        if self.weights.device != self._device:
            self._start()
        now = time.perf_counter()
        last = dict(zip(self.rows, self._last, strict=True))
        everyone = [*self.rows, *new]
        longest = max(row.longest for row in everyone)
        self._cache.reserve(self._padded(len(everyone)), longest)
        self.rows = self._regroup(self.rows, new)
        spare = torch.zeros((), dtype=torch.long, device=self.weights.device)
        self._last = torch.stack([last.get(row, spare) for row in self.rows])
        slots = {row: i for i, row in enumerate(self.rows)}
        new = sorted(new, key=slots.__getitem__)
        with few_threads(self.weights.threads):
            logits = self._prefill(new, [slots[row] for row in new])
            tokens = self._draw(new, self._sampler_of(new), logits)
            for row in new:
                row.started = now
                if not row.done:
                    self.prefixes.keep(row.kind, row.prompt, self._cache, slots[row])
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
        with few_threads(self.weights.threads):
            logits = self._decode()
            self._last = self._draw(rows, self._sampler, logits)
        self._places += 1
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
        self._graphs.clear()
        self.prefixes.clear()
        graphs = self._graphs
        self._start()
        self._graphs = graphs

    @torch.inference_mode()
    def time_step(self, rows: int, length: int = 96) -> float:
        """Seconds of one decode step of `rows` rows with `length` positions: the faster of two.

        The rows use all adapters equally. Running rows are not changed.
        """
        weights = self.weights
        cache = self._new_cache()
        cache.reserve(max(rows, self._least), length + 1)
        adapters = sorted({adapter or "" for adapter in weights.adapters.values()})
        each = sorted(adapters[i % len(adapters)] for i in range(rows))
        names = [name or None for name in each]
        device = weights.device
        count = max(rows, self._least)
        decode = Decode.at(
            cache, torch.arange(count, device=device), torch.full((count,), length, device=device),
            looked_at([length + 1] * count, device),
        )  # fmt: skip
        ids = torch.zeros(1, len(decode.slots), dtype=torch.long, device=device)
        # What else a busy machine does is not counted: this thread's own time, where it computes.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        best = float("inf")
        with few_threads(weights.threads):
            for _ in range(2):
                started = clock()
                logits = self._forward(
                    names, [1.0] * rows, [1] * rows, ids, decode.places.unsqueeze(0),
                    torch.arange(len(decode.slots), device=device), decode,
                )  # fmt: skip
                logits.argmax(-1).tolist()
                best = min(best, clock() - started)
        return best

    def _padded(self, rows: int) -> int:
        """How many rows a decode step computes for `rows` rows: some only fill it up."""
        return max(rows, self._graphs.padded(rows), self._least)

    def _new_cache(self) -> KVCache:
        model = self.weights.model
        return KVCache(cache_dtype(model), model.device, bytes_per_token(model), self._bound)

    def _regroup(self, old: list[Row], new: Sequence[Row]) -> list[Row]:
        """The rows in the order of their new slots; moves them in the cache."""
        rows, moves = regroup(self.rows, old, new)
        for source, target, length in moves:
            self._cache.move(source, target, length)
        return rows

    def _settle(self) -> None:
        """Update what a decode step needs. It changes only when rows join or leave."""
        device = self.weights.device
        count = self._padded(len(self.rows))
        self._slots = torch.arange(count, device=device)
        spare = [0] * (count - len(self.rows))
        self._places = torch.tensor([*(row.length for row in self.rows), *spare], device=device)
        self._sampler = self._sampler_of(self.rows)

    def _prefill(self, rows: Sequence[Row], slots: Sequence[int]) -> torch.Tensor:
        """Logits (rows, vocabulary) after each prompt. Kept prefixes are not computed again."""
        device = self.weights.device
        spans: list[tuple[int, int, int]] = []
        ids: list[int] = []
        places: list[int] = []
        last: list[int] = []
        for row, slot in zip(rows, slots, strict=True):
            kept = self.prefixes.find(row.kind, row.prompt)
            start = sum(part.shape[2] for part in kept)
            if kept:
                self._cache.write(slot, 0, torch.cat(kept, dim=2))
            spans.append((slot, start, len(row.prompt)))
            ids += row.prompt[start:]
            places += range(start, len(row.prompt))
            last.append(len(ids) - 1)
        spare = [0] * max(0, self._least - len(ids))
        heads = [*last, *[0] * max(0, self._least - len(last))]
        logits = self._forward(
            [row.adapter for row in rows],
            [row.request.adapter_scale for row in rows],
            [stop - start for _, start, stop in spans],
            torch.tensor([[*ids, *spare]], device=device),
            torch.tensor([[*places, *spare]], device=device),
            torch.tensor(heads, device=device),
            Prefill.of(self._cache, spans),
        )
        return logits[: len(rows)]

    def _decode(self) -> torch.Tensor:
        """Logits (rows, vocabulary) after each row's last token."""
        rows = self.rows
        count = len(self._slots)
        spare = [1] * (count - len(rows))
        lengths = looked_at([*(row.length + 1 for row in rows), *spare], self._device)
        ids = torch.nn.functional.pad(self._last.view(1, -1), (0, count - len(rows)))
        names = [row.adapter for row in rows]
        scales = [row.request.adapter_scale for row in rows]

        def forward(ids: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, object]:
            decode = Decode.at(self._cache, self._slots, places, lengths)
            logits = self._forward(
                names, scales, [1] * len(rows), ids, places.unsqueeze(0), self._slots, decode
            )
            segments = self.weights.rows and self.weights.rows.segments
            return logits, (self._slots, segments)

        key = (tuple(names), tuple(scales), lengths, self._cache.version)
        logits = self._graphs.run(key, forward, ids, self._places)
        return logits[: len(rows)]

    def _forward(
        self,
        adapters: Sequence[str | None],
        scales: Sequence[float],
        counts: Sequence[int],
        ids: torch.Tensor,
        places: torch.Tensor,
        heads: torch.Tensor,
        cached: Decode | Prefill,
    ) -> torch.Tensor:
        """Logits (len(heads), vocabulary) of the packed tokens at the indices in `heads`.

        `ids` and `places` are (1, tokens). `counts` is the number of tokens of each row. Tokens
        beyond the sum of `counts` only fill up the pass.
        """
        weights = self.weights
        if weights.rows is not None:
            weights.rows.assign(adapters, scales, weights.like, counts)
        # Our attention has its own mask. A mask of four dimensions stops the model making one.
        mask = torch.zeros(1, 1, 1, 1, dtype=weights.like.dtype, device=ids.device)
        kinds = {"full_attention": mask, "sliding_attention": mask} if weights.hybrid else mask
        output = weights.model(
            input_ids=ids,
            attention_mask=kinds,
            position_ids=places,
            use_cache=False,
            logits_to_keep=heads,
            cached=cached,
        )
        return cast(torch.Tensor, output.logits[0])

    def _sampler_of(self, rows: Sequence[Row]) -> Sampler:
        draws = [
            Draw(row.request.decoding, row.luck[len(row.produced) :], (*row.prompt, *row.produced))
            for row in rows
        ]
        head: Any = self.weights.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return Sampler(draws, head.weight.shape[0], self.weights.device)

    def _draw(self, rows: Sequence[Row], sampler: Sampler, logits: torch.Tensor) -> torch.Tensor:
        """Draw the next token of each row and add it to the row; return all tokens (rows,)."""
        tokens, read, broken = sampler.draw(logits)
        for i, row in enumerate(rows):
            if row.done:
                continue
            if broken[i]:
                log.error("Logits of %s are no numbers", row.request.contender)
                row.fail(NO_NUMBERS)
                self._cache.wipe(self.rows.index(row))
            else:
                row.take(read[i], self.weights.ends)
        return tokens.view(-1)


@contextmanager
def few_threads(count: int) -> Iterator[None]:
    """Run the block with at most `count` threads; 0 changes nothing.

    In the small steps of a small model, threads lose more time by waiting than they gain.
    """
    before = torch.get_num_threads()
    if not count or count >= before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _least(weights: Weights) -> int:
    """The least number of tokens of a forward pass that gives a token always the same numbers.

    On a CPU, matrix products use other code for few rows: for fewer than eight in fp32 (MKL), and
    for a single one in 16 bits.
    """
    if weights.device.type != "cpu":
        return 1
    return 8 if weights.like.dtype == torch.float32 else 2
