"""The forward passes of a batch over its KV cache: a prefill, and one decode step of all rows.

It computes logits only. Which rows there are, and which token each takes, the batch decides.

On a GPU a decode step may be a recorded CUDA graph: one launch instead of thousands. A graph is
recorded for each composition of the batch (adapters, dials, number of rows, length of the cache)
that occurs often. The first graph is timed against the plain step. If it is not faster, or if
anything fails, all steps run without graphs, and the log says so once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

from empo_demo.engine.lockstep.attention import Decode, Prefill, looked_at
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


log = logging.getLogger(__name__)
Step = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, object]]
"""Computes logits (rows, vocabulary) from token ids (1, rows) and places (rows,).

The second result holds what the step reads beside the model and the cache. A graph keeps it alive,
because a replay reads the same memory."""
_AFTER, _KEPT, _ASKED, _WORTH = 4, 24, 4096, 0.9


@dataclass(slots=True)
class _Graph:
    graph: Any
    ids: torch.Tensor
    places: torch.Tensor
    logits: torch.Tensor
    kept: object

    def run(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        self.ids.copy_(ids)
        self.places.copy_(places)
        self.graph.replay()
        return self.logits


class StepGraphs:
    """Runs decode steps as recorded graphs where that is faster; only on CUDA.

    `reads_back` says that the model's layers read values back to the host (int8 looks for
    outliers), which no recording allows.
    """

    def __init__(self, device: torch.device, *, reads_back: bool = False) -> None:
        self.device = device
        self.on = device.type == "cuda" and not reads_back
        self.verdict = "not tried"
        if not self.on:
            self.verdict = "not with int8" if reads_back else "not on this device"
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._asked: Counter[Hashable] = Counter()
        self._pool: Any = None

    def padded(self, rows: int) -> int:
        """How many rows a step computes. Few different numbers mean that few graphs are needed."""
        if not self.on:
            return rows
        return 1 << (rows - 1).bit_length() if rows <= 8 else -(-rows // 8) * 8

    def run(
        self, key: Hashable, step: Step, ids: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """The logits of `step(ids, places)`. `key` must tell all that the step depends on."""
        if not self.on:
            return step(ids, places)[0]
        # A stream belongs to a device. The current device may be another than the model's.
        with torch.cuda.device(self.device):
            return self._run(key, step, ids, places)

    def _run(
        self, key: Hashable, step: Step, ids: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            return graph.run(ids, places)
        if len(self._asked) > _ASKED:
            self._asked.clear()
        self._asked[key] += 1
        if self._asked[key] <= _AFTER:
            return step(ids, places)[0]
        stream = torch.cuda.current_stream()
        try:
            graph = self._record(step, ids, places)
            if self.verdict == "not tried" and not self._pays(graph, step, ids, places):
                self.on = False
                self.clear()
                return step(ids, places)[0]
        except Exception as error:
            self.on, self.verdict = False, "off: they cannot be recorded"
            self.clear()
            log.warning("CUDA graphs are off, steps go on without them: %s", error)
            # A recording that fails at its end leaves its own stream the current one.
            torch.cuda.set_stream(stream)
            torch.cuda.synchronize()
            return step(ids, places)[0]
        self._graphs[key] = graph
        if len(self._graphs) > _KEPT:
            oldest, _ = self._graphs.popitem(last=False)
            # Recording costs two steps: one that was pushed out must come several times again.
            del self._asked[oldest]
        return graph.run(ids, places)

    def clear(self) -> None:
        self._graphs.clear()
        self._asked.clear()
        # The allocator takes no new recording into a pool whose graphs are all gone.
        self._pool = None

    def _record(self, step: Step, ids: torch.Tensor, places: torch.Tensor) -> _Graph:
        ids, places = ids.clone(), places.clone()
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(ids, places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits, kept = step(ids, places)
        return _Graph(graph, ids, places, logits, kept)

    def _pays(self, graph: _Graph, step: Step, ids: torch.Tensor, places: torch.Tensor) -> bool:
        """Whether a recorded step is faster. To write the same position again changes nothing."""
        plain = _seconds(lambda: step(ids, places))
        recorded = _seconds(lambda: graph.run(ids, places))
        pays = recorded < _WORTH * plain
        self.verdict = (
            f"{'on' if pays else 'off'}: {recorded * 1000:.1f} ms a step instead of "
            f"{plain * 1000:.1f} ms"
        )
        log.info("CUDA graphs are %s", self.verdict)
        return pays


def _seconds(run: Callable[[], object]) -> float:
    """The median of five runs."""
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[2]
