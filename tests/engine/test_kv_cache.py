"""The KV cache keeps to its bound, rows keep their places, and rounds wait when it is spent."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import torch

from empo_demo.engine.lockstep.kv_cache import BLOCK, KVCache, Prefixes, bytes_per_token, rounded
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request

SAD = ({"role": "user", "content": "I failed my driving test again."},)
LIKE = torch.zeros(1, 2, 1, 4)


def cache(limit: int = 1 << 20) -> KVCache:
    return KVCache(torch.float32, torch.device("cpu"), 2 * 2 * 4 * 4, limit)


def engine_with(exact_engine: LocalEngine, kv_bytes: int, rounds: int | None = 8) -> LocalEngine:
    copies = [batch.weights for batch in exact_engine._batches]
    return LocalEngine(copies, {}, max_rounds=rounds, kv_bytes=kv_bytes)


def test_it_grows_by_doubling_and_keeps_what_is_in_it() -> None:
    one = cache()
    one.reserve(2, 50)
    keys, _ = one.layer(0, LIKE)
    keys.normal_()
    before = keys.clone()
    one.reserve(3, 60)
    assert one.slots == 4 and one.positions == rounded(60)
    one.reserve(3, 100)
    assert torch.equal(one.layer(0, LIKE)[0][:2, :, :64], before)


def test_a_bound_that_doubling_would_break_is_kept_by_what_is_needed() -> None:
    one = cache(limit=3 * 64 * 64)
    one.reserve(2, 60)
    one.reserve(3, 60)
    assert one.slots == 3 and one.slots * one.positions * one.per_token <= one.limit


def test_prefixes_are_bound_and_forget_what_is_oldest() -> None:
    one, kept = cache(), Prefixes(4 * BLOCK * 64)
    one.reserve(1, 64)
    one.layer(0, LIKE)[0].normal_()
    ids = [[number] * (2 * BLOCK + 1) for number in range(3)]
    for number in range(3):
        kept.keep(("", 0.0), ids[number], one, 0)
        assert kept.bytes <= kept.limit
    assert not kept.find(("", 0.0), ids[0]) and len(kept.find(("", 0.0), ids[2])) == 2
    assert not kept.find(("a0", 1.0), ids[2])
    assert len(kept.find(("", 0.0), ids[2][: 2 * BLOCK])) == 1, "one token must be left to read"
    restored = torch.cat(kept.find(("", 0.0), ids[2]), dim=2)
    assert torch.equal(restored, one.read(0, 0, 2 * BLOCK))


def test_rounds_wait_when_the_cache_is_spent(exact_engine: LocalEngine) -> None:
    per_token = bytes_per_token(exact_engine.model_of("base").model)
    # Room for eight rows (a step of fp32 rows has at least as many) of 64 tokens, and no more.
    engine = engine_with(exact_engine, 4 * 8 * 64 * per_token // 3 + 4)
    short = [Request("a", "base", SAD, Decoding(0, 1, 1.0, 12))]
    seven = [Request(f"{i}", "base", SAD, Decoding(0, 1, 1.0, 12)) for i in range(8)]
    running = engine.stream(seven)
    next(running)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(engine.stream(short)))
    thread.start()
    deadline = time.monotonic() + 60
    while engine.waiting == 0 and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.join(0.5)
    assert thread.is_alive() and engine.waiting == 1
    running.close()  # type: ignore[attr-defined]
    thread.join(60)
    assert isinstance(found[-1], Finished) and engine.waiting == 0


def test_a_round_that_never_fits_is_told_the_numbers(exact_engine: LocalEngine) -> None:
    engine = engine_with(exact_engine, 1000)
    (event,) = engine.stream([Request("a", "base", SAD, Decoding(0, 1, 1.0, 12))])
    assert isinstance(event, Failed) and "KV cache" in event.error and "shorten" in event.error


def test_rows_that_join_and_leave_at_random_keep_their_replies(exact_engine: LocalEngine) -> None:
    engine = engine_with(exact_engine, 1 << 24, rounds=64)
    lot = random.Random(3)
    jobs = [
        [
            Request(
                "x",
                lot.choice(["base", "aligned"]),
                SAD * lot.choice([1, 1, 3]),
                Decoding(0.9, 0.95, 1.0, lot.randint(1, 40)),
                seed,
                adapter_scale=lot.choice([1.0, 1.0, 0.5]),
            )
        ]
        for seed in range(24)
    ]

    def text(events: Any) -> str:
        return next(event.text for event in events if isinstance(event, Finished))

    alone = [text(engine.stream(job)) for job in jobs]
    running: dict[int, Any] = {}
    found: dict[int, str] = {}
    waiting = list(range(len(jobs)))
    while waiting or running:
        if waiting and lot.random() < 0.5:
            number = waiting.pop()
            running[number] = engine.stream(jobs[number])
        for number in lot.sample(sorted(running), min(3, len(running))):
            event = next(running[number], None)
            if isinstance(event, Finished):
                found[number] = event.text
            if event is None:
                del running[number]
    assert [found[i] for i in range(len(jobs))] == alone


def test_how_many_rounds_pay_is_measured(exact_engine: LocalEngine) -> None:
    engine = engine_with(exact_engine, 1 << 24, rounds=None)
    rounds = int(engine.describe()["rounds at once"])
    assert 1 <= rounds <= 32 and engine.batch_of("base").rows == []
    assert list(engine.stream([Request("a", "base", SAD, Decoding(0, 1, 1.0, 3))]))


def test_rows_that_join_together_lie_by_length(exact_engine: LocalEngine) -> None:
    """Attention then reads few runs of neighbours instead of one row at a time."""
    from empo_demo.engine.lockstep.batch import regroup

    batch = exact_engine.batch_of("base")
    rows = [
        batch.prepare(Request(f"{side}{n}", side, SAD * (1 + n % 2 * 2), Decoding(0, 1, 1.0, 3)))
        for n in range(6)
        for side in ("base", "aligned")
    ]
    placed, moves = regroup([], [], rows)
    lengths = [(row.adapter or "", len(row.prompt)) for row in placed]
    assert lengths == sorted(lengths) and len(set(lengths)) == 4 and moves == []


def test_a_busy_machine_does_not_count_as_slow_steps(exact_engine: LocalEngine) -> None:
    """While other programs run, a step waits; that says nothing about how many rounds pay."""
    passes: Any = exact_engine.batch_of("base").forward
    forward = passes._forward

    def waiting(*args: Any) -> Any:
        time.sleep(1.0)
        return forward(*args)

    passes._forward = waiting
    try:
        assert passes.time_step(2) < 0.9
    finally:
        del passes._forward
