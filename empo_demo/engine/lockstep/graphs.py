"""CUDA graphs of decode steps: a recorded step is one launch instead of thousands.

A graph is recorded for each composition of the batch (adapters, dials, number of rows, length of
the cache) that occurs often. The first graph is timed against the plain step. If it is not faster,
or if anything fails, all steps run without graphs, and the log says so once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

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
