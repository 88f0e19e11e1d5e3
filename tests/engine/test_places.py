"""Rounds beyond the limit wait in line and can be told how long it is."""

from __future__ import annotations

import importlib
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.lockstep.places import FairLock, Places, choose_threads
from empo_demo.engine.protocol import Decoding, Event, Finished, Request

SAD = ({"role": "user", "content": "I failed my driving test again."},)
REQUESTS = [Request("a", "base", SAD, Decoding(0, 1, 1.0, 12))]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_places_are_given_in_the_order_of_asking() -> None:
    places, order = Places(1), []
    places.take()

    def wait(name: str) -> None:
        places.take()
        order.append(name)
        places.give_back()

    threads = []
    for number, name in enumerate("bcd", start=1):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        until(lambda number=number: places.waiting == number)  # type: ignore[misc]
    places.give_back()
    for thread in threads:
        thread.join(60)
    assert order == ["b", "c", "d"] and places.waiting == 0


def test_a_thread_that_asks_again_comes_behind_those_that_wait() -> None:
    """As a stream that steps for all does: it asks for the lock as soon as it has released it."""
    lock, order = FairLock(), list[str]()

    def wait(name: str) -> None:
        with lock:
            order.append(name)

    threads = [threading.Thread(target=wait, args=(name,)) for name in "bcd"]
    with lock:
        for number, thread in enumerate(threads, start=1):
            thread.start()
            until(lambda number=number: len(lock._line) == number)  # type: ignore[misc]
    with lock:
        order.append("a")
    assert order == ["b", "c", "d", "a"]
    for thread in threads:
        thread.join(60)


def test_the_rounds_that_run_together_are_as_many_as_cost_no_speed() -> None:
    """Whoever waits sees nothing: the tenth that more rounds once had to add is not asked for."""
    from empo_demo.engine.lockstep.places import rounds_at_once

    class Timed:
        def __init__(self, *seconds: float) -> None:
            self.seconds = dict(zip((2, 4, 8, 16, 32, 64), seconds, strict=False))

        def time_step(self, rows: int) -> float:
            return self.seconds[rows]

    def found(*seconds: float) -> int:
        return rounds_at_once([Timed(*seconds)])  # type: ignore[list-item]

    assert found(0.010, 0.011, 0.013, 0.018, 0.035, 0.069) == 32  # as fast as with 8
    assert found(0.010, 0.030, 0.013, 0.018, 0.030, 0.050) == 32  # a busy moment at 2
    assert found(0.010, 0.018, 0.033, 0.064, 0.200, 0.500) == 8  # slower from then on
    assert found(0.200, 0.201, 0.210, 0.300) == 4  # too slow to read along
    assert found(0.900, 1.000) == 1
    assert rounds_at_once([Timed()]) == 4  # type: ignore[list-item]


@pytest.mark.parametrize(("all_", "chosen"), [(0.6, 0), (0.95, 1), (9.0, 1)])
def test_a_small_step_takes_one_thread_unless_all_are_clearly_faster(
    all_: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`all_` is the time of a step on all threads, as a multiple of that on one."""
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    weights: Any = types.SimpleNamespace(fused=object(), steady=False, few_threads=0)
    passes: Any = types.SimpleNamespace(time_step=lambda _: 1.0 if weights.few_threads else all_)
    choose_threads(passes, weights)
    assert weights.few_threads == chosen
    weights.fused = None  # the model's own layers stay as they were
    choose_threads(passes, weights)
    assert weights.few_threads == chosen


def test_a_round_in_line_starts_when_one_ends(
    exact_engine: LocalEngine,
) -> None:
    engine = LocalEngine([batch.weights for batch in exact_engine._batches], {}, max_rounds=1)
    running = engine.stream(REQUESTS)
    next(running)
    found: list[list[Event]] = []
    waiting = engine.stream(REQUESTS)
    thread = threading.Thread(target=lambda: found.append(list(waiting)))
    thread.start()
    until(lambda: engine.waiting == 1)
    assert not found
    running.close()  # type: ignore[attr-defined]
    thread.join(60)
    assert isinstance(found[0][-1], Finished) and engine.waiting == 0


def test_a_round_that_is_cut_in_line_leaves_it_at_once(exact_engine: LocalEngine) -> None:
    engine = LocalEngine([batch.weights for batch in exact_engine._batches], {}, max_rounds=1)
    running = engine.stream(REQUESTS)
    next(running)
    found: dict[str, list[Event]] = {}
    waiting = {name: engine.stream(REQUESTS) for name in "bc"}
    threads = [
        threading.Thread(target=lambda n=name: found.update({n: list(waiting[n])}))  # type: ignore[misc]
        for name in waiting
    ]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        until(lambda number=number: engine.waiting == number)  # type: ignore[misc]
    waiting["b"].cut()  # type: ignore[attr-defined]
    threads[0].join(1)
    assert found == {"b": []}, "it ended at once, and said nothing"
    assert engine.waiting == 1 and "c" not in found
    running.close()  # type: ignore[attr-defined]
    threads[1].join(60)
    assert isinstance(found["c"][-1], Finished), "the place of the round that ran is free"


def test_a_round_that_is_cut_while_it_runs_gives_its_place_to_the_next(
    exact_engine: LocalEngine,
) -> None:
    engine = LocalEngine([batch.weights for batch in exact_engine._batches], {}, max_rounds=1)
    running = engine.stream(REQUESTS)
    next(running)
    running.cut()  # type: ignore[attr-defined]
    assert not any(isinstance(event, Finished) for event in running)
    before = engine.stream(REQUESTS)
    before.cut()  # type: ignore[attr-defined]
    assert list(before) == [], "also before it was read at all"
    assert isinstance(list(engine.stream(REQUESTS))[-1], Finished)


def test_whoever_gives_up_as_the_turn_comes_reserves_nothing() -> None:
    places, gone = Places(1), threading.Event()
    gone.set()
    assert not places.take(claim=lambda: pytest.fail("room was reserved"), given_up=gone.is_set)
    assert places.waiting == 0 and places.take()


def test_a_stream_that_was_never_started_takes_no_place(exact_engine: LocalEngine) -> None:
    engine = LocalEngine([batch.weights for batch in exact_engine._batches], {}, max_rounds=1)
    engine.stream(REQUESTS).close()  # type: ignore[attr-defined]
    assert isinstance(list(engine.stream(REQUESTS))[-1], Finished)


def test_a_leased_gpu_runs_both_sides_in_one_lease(
    exact_engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package `spaces` cannot run here; this stands for its decorator alone."""
    leases: list[int] = []

    def gpu(duration: Callable[..., int]) -> Any:
        def decorate(function: Any) -> Any:
            def leased(requests: Any) -> Iterator[Event]:
                leases.append(duration(requests))
                yield from function(requests)

            return leased

        return decorate

    fake = types.ModuleType("spaces")
    fake.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", fake)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    import empo_demo.engine.lease as lease

    try:
        engine = importlib.reload(lease).LeasedEngine(exact_engine, [])
        pair = [*REQUESTS, Request("b", "aligned", SAD, Decoding(0, 1, 1.0, 12))]
        leased = [e.text for e in engine.stream(pair) if isinstance(e, Finished)]
        plain = [e.text for e in exact_engine.stream(pair) if isinstance(e, Finished)]
        assert leased == plain and len(leases) == 1 and leases[0] >= 5
        assert engine.describe()["lease"] == "ZeroGPU" and engine.waiting == 0
    finally:
        monkeypatch.undo()
        importlib.reload(lease)
