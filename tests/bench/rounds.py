"""What rounds cost beside each other, turn after turn, and how long visitors wait.

`python -m tests.bench.rounds [--json] [--only together turns growth visitors prefill]`. The
embedded pair in NF4, or that of --base, --adapter and --quantization. Parts:

together  16 rounds at once against the same 16 one after another: CPU per token, and its ratio
          `cpu_16_over_serial` (how many times cheaper a token is in company).
turns     CPU until both sides' first token at the last turn of a dialogue (by default the 20th)
          against its 1st turn.
growth    CPU of a decode step at 2,000 positions against 100 (a random model of the same shape),
          without attention, which is timed by itself.
prefill   reading a pair's prompt with torch's default threads against one thread.
visitors  24 threads of 3 rounds each: click to first word, median and 95th percentile.

The last line is one JSON object. CPU time holds on a busy machine; waiting does not, so the number
of processes that wanted to run (`load`) is given beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from empo_demo.engine.protocol import Decoding, Delta, Finished, Request
from tests.bench.company import ALIGNED, BASE, forget, make_engine, rounds_of

PARTS = ("together", "turns", "growth", "prefill", "visitors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line on stdout")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60, help="of each reply")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--adapter", default=ALIGNED)
    parser.add_argument("--quantization", default="nf4", choices=["nf4", "int8", "none"])
    options = parser.parse_args()
    engine = make_engine(options.quantization, None, options.base, options.adapter)
    report: dict[str, Any] = {"rounds_at_once": int(engine.describe()["rounds at once"])}
    for part in options.only:
        found = globals()[part](engine, options)
        print(part, found, file=sys.stderr)
        report |= found
    print(json.dumps(report | {"load": os.getloadavg()[0]}))


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def tokens_of(events: Any) -> int:
    return sum(event.tokens for event in events if isinstance(event, Finished))


def together(engine: Any, options: argparse.Namespace) -> dict[str, float]:
    """Interleaved; nothing is kept from one to the next, so that each reads all its prompts.

    Every reply has the same number of tokens: no end token counts.
    """
    rounds = rounds_of(16, options.tokens)
    weights = engine.model_of("base")
    ends, weights.ends = weights.ends, frozenset()
    serial, company = [], []
    for turn in range(options.repeat + 1):
        used, made = 0.0, 0
        for one in rounds:
            forget(engine)
            spent, tokens = cpu(lambda one=one: tokens_of(list(engine.stream(one))))
            used, made = used + spent, made + tokens
        forget(engine)
        spent, tokens = cpu(
            lambda: tokens_of(list(engine.stream([r for one in rounds for r in one])))
        )
        if turn:
            serial.append(used / made)
            company.append(spent / tokens)
    weights.ends = ends
    one, many = statistics.median(serial), statistics.median(company)
    return {
        "cpu_16_over_serial": one / many,
        "cpu_ms_per_token_serial": one * 1000,
        "cpu_ms_per_token_16": many * 1000,
    }


def first_token(engine: Any, requests: list[Request]) -> float:
    def work() -> None:
        stream = engine.stream(requests)
        next(stream)
        stream.close()

    return cpu(work)[0]


def turns(engine: Any, options: argparse.Namespace) -> dict[str, float]:
    """The chosen reply of one side stands in the next turn's dialogue of both."""
    said = (
        "I failed my driving test again, and my father was sitting in the back.",
        "Oh no, I am sorry to hear that. What happened?",
    )
    decoding = Decoding(0.7, 0.9, 1.1, 40)
    first, last, without = [], [], []
    for run in range(options.repeat):
        forget(engine)
        dialogue: list[dict[str, str]] = []
        for turn in range(options.turns):
            dialogue.append({"role": "user", "content": f"{said[0]} ({run}.{turn})"})
            both = [Request(s, s, tuple(dialogue), decoding, run) for s in ("base", "aligned")]
            if turn == 0:
                # What is measured begins cold, as a visitor's first turn does.
                forget(engine)
            spent = first_token(engine, both)
            dialogue.append({"role": "assistant", "content": said[1]})
            if turn == 0:
                first.append(spent)
        last.append(spent)
        forget(engine)
        without.append(first_token(engine, both))
    medians = [statistics.median(values) * 1000 for values in (first, last, without)]
    return {
        "turns": options.turns,
        "turn_last_over_1": medians[1] / medians[0],
        "cpu_ms_first_token_turn_1": medians[0],
        "cpu_ms_first_token_turn_last": medians[1],
        "cpu_ms_first_token_turn_last_nothing_kept": medians[2],
    }


def growth(engine: Any, options: argparse.Namespace) -> dict[str, float]:
    import torch

    from empo_demo.engine.lockstep import attention

    batch = engine.batch_of("aligned")
    times: dict[int, list[float]] = {100: [], 2000: []}
    inside = [0.0]
    plain = attention.scaled_dot_product_attention

    def timed(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        found = plain(*args, **options)
        inside[0] += time.process_time() - started
        return found

    attention.scaled_dot_product_attention = timed
    try:
        with torch.inference_mode():
            for _ in range(2 * options.repeat + 1):
                for length in times:
                    inside[0] = 0.0
                    spent, _ = cpu(lambda length=length: step_at(batch, length))
                    times[length].append(spent - inside[0])
    finally:
        attention.scaled_dot_product_attention = plain
    few, many = (statistics.median(values[1:]) for values in times.values())
    return {"step_2000_over_100_beyond_attention": many / few}


def step_at(batch: Any, length: int) -> None:
    """Ten decode steps of a pair with `length` positions behind it."""
    import torch

    from empo_demo.engine.lockstep.attention import Decode, looked_at
    from empo_demo.engine.lockstep.forward import few_threads

    if not hasattr(batch, "_bench"):
        batch._bench = {}
    if length not in batch._bench:
        cache = batch.forward.new_cache()
        cache.reserve(2, length + 64)
        batch._bench[length] = cache
    cache = batch._bench[length]
    with few_threads(batch.weights.threads):
        for step in range(10):
            places = torch.full((2,), length + step)
            lengths = looked_at([length + 64] * 2, places.device)
            decode = Decode.at(cache, torch.arange(2), places, lengths)
            # Positions are taken modulo the model's context: only the cost is of interest.
            ids = torch.zeros(1, 2, dtype=torch.long)
            batch.forward._forward(
                [None, "a0"],
                [1.0, 1.0],
                [1, 1],
                ids,
                (places % 512).unsqueeze(0),
                torch.arange(2),
                decode,
            )


def prefill(engine: Any, options: argparse.Namespace) -> dict[str, float]:
    import torch

    default = torch.get_num_threads()
    requests = rounds_of(1, 8)[0]
    times: dict[int, list[float]] = {default: [], 1: []}
    for _ in range(4 * options.repeat):
        for threads in times:
            torch.set_num_threads(threads)
            forget(engine)
            started = time.perf_counter()
            first_token(engine, requests)
            times[threads].append((time.perf_counter() - started) * 1000)
    torch.set_num_threads(default)
    # The least of many: what others do on the machine only ever adds.
    return {
        "threads_default": default,
        "prefill_ms_default_threads": min(times[default]),
        "prefill_ms_one_thread": min(times[1]),
        "prefill_default_over_one": min(times[default]) / min(times[1]),
    }


def visitors(
    engine: Any, options: argparse.Namespace, people: int = 24, each: int = 3
) -> dict[str, float]:
    rounds = rounds_of(people * each, options.tokens)
    waits: list[float] = []

    def visit(number: int) -> None:
        for turn in range(each):
            started = time.perf_counter()
            first = None
            for event in engine.stream(rounds[number * each + turn]):
                if first is None and isinstance(event, Delta):
                    first = time.perf_counter() - started
            waits.append(first or time.perf_counter() - started)

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(people)]
    started = time.perf_counter()
    used, _ = cpu(lambda: [t.start() for t in threads] and [t.join() for t in threads])
    waits.sort()
    return {
        "visitors_first_word_median_s": statistics.median(waits),
        "visitors_first_word_p95_s": waits[int(0.95 * len(waits))],
        "visitors_all_done_s": time.perf_counter() - started,
        "visitors_cpu_s": used,
    }


if __name__ == "__main__":
    main()
