"""Can somebody tell from arrival times which side is which? And which engine is faster?

Both take an engine and ask it for rounds as the arena does.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empo_demo.board.standing import wilson
from empo_demo.engine.protocol import Decoding, Delta, Engine, Failed, Finished, Request

PROMPTS = (
    "I failed my driving test for the third time today.",
    "My sister just had her first baby, and they are both well!",
    "Somebody stole my bike in front of the library.",
    "I got the job that I wanted for years.",
    "My dog died last night and the house is so quiet.",
    "My flatmate ate my food again without asking.",
    "I am giving a talk in front of two hundred people tomorrow.",
    "My grandmother taught me how to bake her bread.",
)
_FOLDS = 10
_BEFORE_THE_END = 0.9
"""Up to this share of the time to the first end both sides write; then it shows who ends first."""


@dataclass(frozen=True)
class Guess:
    """How often a rule named the aligned side. `upper` ends the 95 % interval."""

    rounds: int
    accuracy: float
    upper: float


@dataclass(frozen=True)
class _Arrivals:
    """When the pieces of one side arrived, in seconds, when its end did, and its characters."""

    times: list[float]
    end: float
    length: int


def timings(engine: Engine, base: str, aligned: str, rounds: int, at_once: int) -> dict[str, Guess]:
    """Play `rounds` and let logistic regressions guess, in ten folds, which side is aligned.

    `arrival` sees, for both sides and as long as both are writing, when the first and the last text
    arrived, how many pieces there were, and the mean and the spread of the pauses between them.
    Whoever sees which side ends first sees which reply is shorter, which no pace can hide: `length`
    sees the characters alone, and `all` sees the whole of the arrivals with their ends.
    """
    rng = np.random.default_rng(0)
    aligned_is_a = rng.random(rounds) < 0.5

    def play(number: int) -> tuple[_Arrivals, _Arrivals]:
        sides = (aligned, base) if aligned_is_a[number] else (base, aligned)
        return _arrivals(engine, sides, PROMPTS[number % len(PROMPTS)], seed=number)

    with ThreadPoolExecutor(at_once) as threads:
        played = list(threads.map(play, range(rounds)))
    seen = {
        "arrival": [_while_both_write(*both) for both in played],
        "length": [np.array([float(both[0].length - both[1].length)]) for both in played],
        "all": [_whole(*both) for both in played],
    }
    return {name: _guess(np.stack(rows), aligned_is_a) for name, rows in seen.items()}


def _guess(seen: NDArray[np.float64], truth: NDArray[np.bool_]) -> Guess:
    share = float((_guessed(seen, truth) == truth).mean())
    upper = float(wilson(np.array(share), np.array(float(len(truth))))[1])
    return Guess(len(truth), share, upper)


def _arrivals(
    engine: Engine, sides: Sequence[str], prompt: str, seed: int
) -> tuple[_Arrivals, _Arrivals]:
    """What a browser can measure of one round."""
    requests = _pair(sides, prompt, seed, Decoding(max_new_tokens=24))
    started = time.perf_counter()
    arrived: dict[str, list[float]] = {"a": [], "b": []}
    ended: dict[str, _Arrivals] = {}
    for event in engine.stream(requests):
        now = time.perf_counter() - started
        if isinstance(event, Failed):
            raise RuntimeError(event.error)
        if isinstance(event, Finished):
            ended[event.side] = _Arrivals(arrived[event.side], now, len(event.text))
        elif event.text:
            arrived[event.side].append(now)
    return ended["a"], ended["b"]


def _while_both_write(a: _Arrivals, b: _Arrivals) -> NDArray[np.float64]:
    until = _BEFORE_THE_END * min(a.end, b.end)
    rows = [_row([one for one in side.times if one <= until] or [until]) for side in (a, b)]
    return np.subtract(*map(np.asarray, rows))


def _whole(a: _Arrivals, b: _Arrivals) -> NDArray[np.float64]:
    rows = [[*_row(side.times or [side.end]), side.end] for side in (a, b)]
    return np.subtract(*map(np.asarray, rows))


def _row(times: Sequence[float]) -> list[float]:
    gaps = np.diff(times) if len(times) > 1 else np.zeros(1)
    return [times[0], times[-1], float(len(times)), float(gaps.mean()), float(gaps.std())]


def _guessed(seen: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What the rule says of each round, fitted on the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rule = make_pipeline(StandardScaler(), LogisticRegression())
    guessed: NDArray[np.bool_] = cross_val_predict(rule, seen, truth, cv=_FOLDS)
    return guessed


def speed(engine: Engine, base: str, aligned: str, pairs: int, tokens: int) -> dict[str, float]:
    """The median seconds to the first word, and the tokens per second of all `pairs` at once."""
    decoding = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=tokens)
    firsts: list[float] = []

    def play(number: int) -> int:
        started, heard, written = time.perf_counter(), False, 0
        for event in engine.stream(
            _pair((base, aligned), PROMPTS[number % len(PROMPTS)], number, decoding)
        ):
            if isinstance(event, Failed):
                raise RuntimeError(event.error)
            if isinstance(event, Delta) and event.text and not heard:
                firsts.append(time.perf_counter() - started)
                heard = True
            if isinstance(event, Finished):
                written += event.tokens
        return written

    play(0)
    firsts.clear()
    started = time.perf_counter()
    with ThreadPoolExecutor(pairs) as threads:
        written = sum(threads.map(play, range(pairs)))
    elapsed = time.perf_counter() - started
    return {"first word": statistics.median(firsts), "tokens per second": written / elapsed}


def own_memory() -> float:
    """The peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _pair(sides: Sequence[str], prompt: str, seed: int, decoding: Decoding) -> list[Request]:
    messages: Any = ({"role": "user", "content": prompt},)
    one = Request("a", sides[0], messages, decoding, seed, round=str(seed))
    return [one, replace(one, side="b", contender=sides[1], seed=seed + 1)]
