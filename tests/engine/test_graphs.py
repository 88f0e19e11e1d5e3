"""Recorded decode steps give the replies of plain ones, whatever joins, leaves and grows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from empo_demo.engine.lockstep.forward import StepGraphs
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Request
from tests.bench.company import texts
from tests.engine.fake_graphs import Graph, graphs

__all__ = ["graphs"]
SAD = ({"role": "user", "content": "I failed my driving test again."},)
GLAD = ({"role": "user", "content": "We are getting a puppy on Saturday!"},)
SAMPLED = Decoding(0.9, 0.95, 1.1, 40)


def pair(seed: int, messages: Any = SAD, dial: float = 1.0) -> list[Request]:
    return [
        Request("a", "base", messages, SAMPLED, seed),
        Request("b", "aligned", messages, SAMPLED, seed, adapter_scale=dial),
    ]


@pytest.fixture
def recorded(
    exact_engine: LocalEngine, graphs: type[Graph], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalEngine]:
    """The engine whose steps are recorded as on a GPU; no end token counts."""
    batch = exact_engine.batch_of("base")
    plain, ends = batch.forward.graphs, batch.weights.ends
    monkeypatch.setattr(StepGraphs, "_pays", lambda *_: True)
    batch.forward.graphs = StepGraphs(batch.weights.device)
    batch.weights.ends = frozenset()
    yield exact_engine
    batch.forward.graphs, batch.weights.ends = plain, ends
    batch.clear()


def replies(engine: LocalEngine) -> list[dict[str, str]]:
    """Rounds one after another, two that overlap, a dial, and a cache that grows between."""
    found = [texts(engine.stream(pair(seed))) for seed in (1, 2)]
    running = engine.stream(pair(3))
    seen = [next(running) for _ in range(12)]
    found.append(texts(engine.stream(pair(4, GLAD))))
    found.append(texts([*seen, *running]))
    found += [texts(engine.stream(pair(seed, dial=dial))) for seed in (5, 6) for dial in (0.5, 1)]
    many = [r for n in range(4) for r in _named(n, pair(7 + n, GLAD))]
    found.append(texts(engine.stream(many)))
    found += [texts(engine.stream(pair(1))) for _ in range(2)]
    return found


def _named(number: int, requests: list[Request]) -> list[Request]:
    from dataclasses import replace

    return [replace(one, side=f"{number}{one.side}", round=str(number)) for one in requests]


@pytest.mark.slow
def test_recorded_steps_give_the_replies_of_plain_ones(recorded: LocalEngine) -> None:
    expected = replies(recorded)
    assert Graph.replays == 0
    recorded.batch_of("base").forward.graphs.on = True
    gc.collect()
    assert replies(recorded) == expected
    graphs = recorded.batch_of("base").forward.graphs
    assert graphs.on, graphs.verdict
    assert Graph.replays > 100
