"""The forward passes of a batch over its KV cache: a prefill, and one decode step of all rows.

It computes logits only. Which rows there are, and which token each takes, the batch decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch

from empo_demo.engine.lockstep.attention import Decode, Prefill, looked_at
from empo_demo.engine.lockstep.graphs import StepGraphs
from empo_demo.engine.lockstep.kv_cache import KVCache, Prefixes, bytes_per_token, cache_dtype
from empo_demo.engine.lockstep.row import Row
from empo_demo.engine.weights.model_weights import Weights


class ForwardPasses:
    """Forward passes of one copy of the weights, with an empty KV cache of at most `limit` bytes.

    `prefixes` are the kept keys and values of earlier prompts. The passes run on the device on
    which the weights are now.
    """

    def __init__(self, weights: Weights, prefixes: Prefixes, limit: int) -> None:
        self.weights, self.prefixes, self.limit = weights, prefixes, limit
        self.device = weights.device
        self.cache = self.new_cache()
        self.graphs = StepGraphs(self.device, reads_back=weights.int8)
        self._least = _least(weights)
        self._slots = self._places = torch.zeros(0, dtype=torch.long)

    def padded(self, rows: int) -> int:
        """How many rows a decode step computes for `rows` rows: some only fill it up."""
        return max(rows, self.graphs.padded(rows), self._least)

    def bytes_of(self, rows: int, longest: int) -> int:
        """Bytes of KV cache for `rows` rows of `longest` tokens."""
        return self.cache.bytes_of(self.padded(rows), longest)

    def reserve(self, rows: int, longest: int) -> None:
        """Make room for `rows` rows of `longest` tokens. The rows that are there stay."""
        self.cache.reserve(self.padded(rows), longest)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions to another slot."""
        self.cache.move(source, target, length)

    def wipe(self, slot: int) -> None:
        """Forget the numbers of a broken row, so that they cannot spread."""
        self.cache.wipe(slot)

    def keep(self, row: Row, slot: int) -> None:
        """Keep the prompt of a row that was just prefilled, for the dialogue's next turn."""
        self.prefixes.keep(row.kind, row.prompt, self.cache, slot)

    def renewed(self) -> ForwardPasses:
        """Passes without rows, prefixes and recorded graphs. What graphs are worth stays known."""
        self.prefixes.clear()
        self.graphs.clear()
        fresh = ForwardPasses(self.weights, self.prefixes, self.limit)
        if fresh.device == self.device:
            fresh.graphs = self.graphs
        return fresh

    def new_cache(self) -> KVCache:
        model = self.weights.model
        return KVCache(cache_dtype(model), model.device, bytes_per_token(model), self.limit)

    def settle(self, rows: Sequence[Row]) -> None:
        """Update what a decode step needs. It changes only when rows join or leave."""
        device = self.weights.device
        count = self.padded(len(rows))
        self._slots = torch.arange(count, device=device)
        spare = [0] * (count - len(rows))
        self._places = torch.tensor([*(row.length for row in rows), *spare], device=device)

    def prefill(self, rows: Sequence[Row], slots: Sequence[int]) -> torch.Tensor:
        """Logits (rows, vocabulary) after each prompt. Kept prefixes are not computed again."""
        device = self.weights.device
        spans: list[tuple[int, int, int]] = []
        ids: list[int] = []
        places: list[int] = []
        last: list[int] = []
        for row, slot in zip(rows, slots, strict=True):
            prefix = self.prefixes.find(row.kind, row.prompt)
            start = sum(part.shape[2] for part in prefix)
            if prefix:
                self.cache.write(slot, 0, torch.cat(prefix, dim=2))
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
            Prefill.of(self.cache, spans),
        )
        return logits[: len(rows)]

    def decode(self, rows: Sequence[Row], last: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) after each row's `last` token; `settle` was given the rows."""
        count = len(self._slots)
        spare = [1] * (count - len(rows))
        lengths = looked_at([*(row.length + 1 for row in rows), *spare], self.device)
        ids = torch.nn.functional.pad(last.view(1, -1), (0, count - len(rows)))
        names = [row.adapter for row in rows]
        scales = [row.request.adapter_scale for row in rows]

        def forward(ids: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, object]:
            decode = Decode.at(self.cache, self._slots, places, lengths)
            logits = self._forward(
                names, scales, [1] * len(rows), ids, places.unsqueeze(0), self._slots, decode
            )
            segments = self.weights.rows and self.weights.rows.segments
            return logits, (self._slots, segments)

        key = (tuple(names), tuple(scales), lengths, self.cache.version)
        logits = self.graphs.run(key, forward, ids, self._places)
        self._places += 1
        return logits[: len(rows)]

    @torch.inference_mode()
    def time_step(self, rows: int, length: int = 96) -> float:
        """Seconds of one decode step of `rows` rows with `length` positions: the faster of two.

        The rows use all adapters equally. Running rows are not changed.
        """
        weights = self.weights
        cache = self.new_cache()
        cache.reserve(max(rows, self._least), length + 1)
        adapters = sorted({adapter or "" for adapter in weights.adapters.values()})
        each = sorted(adapters[i % len(adapters)] for i in range(rows))
        names = [name or None for name in each]
        device = weights.device
        count = max(rows, self._least)
        decode = Decode.at(
            cache,
            torch.arange(count, device=device),
            torch.full((count,), length, device=device),
            looked_at([length + 1] * count, device),
        )
        ids = torch.zeros(1, len(decode.slots), dtype=torch.long, device=device)
        # What else a busy machine does is not counted: this thread's own time, where it computes.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        best = float("inf")
        with few_threads(weights.threads_of(rows)):
            for _ in range(2):
                started = clock()
                logits = self._forward(
                    names,
                    [1.0] * rows,
                    [1] * rows,
                    ids,
                    decode.places.unsqueeze(0),
                    torch.arange(len(decode.slots), device=device),
                    decode,
                )
                logits.argmax(-1).tolist()
                best = min(best, clock() - started)
        return best

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
        if weights.fused is not None:
            return weights.fused(ids, places, heads, cached)
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
