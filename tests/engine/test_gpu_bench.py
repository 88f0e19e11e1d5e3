"""The benchmark for the first GPU runs here at 1/50 of its size; what needs CUDA runs with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.bench.gpu import LINES, Bench, arguments


def bench(*options: str, timeout: float = 600) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gpu", "--json", *options],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


@pytest.mark.slow
def test_the_benchmark_runs_at_a_fiftieth_on_a_cpu() -> None:
    found = bench("--device", "cpu", "--scale", "0.02", "--tokens", "6", "--minutes", "8")
    assert tuple(found["lines"]) == LINES and found["shape"]["hidden"] == 64
    assert {line["verdict"] for line in found["lines"].values()} <= {"PASS", "no time left"}
    assert found["lines"]["parity"]["verdict"] == "PASS"
    waits = found["lines"]["waits"]
    assert waits["verdict"] == "no time left" or waits["per_step"] == waits["most"] == 1


@pytest.mark.slow
def test_a_failing_line_is_said_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "pair", "bandwidth"])
    made = Bench(arguments())
    for name in ("pair", "bandwidth"):
        made.run(name)
    assert made.found["pair"]["verdict"] == "FAIL" and "error" in made.found["pair"]
    assert made.found["bandwidth"]["verdict"] == "PASS"


@pytest.mark.gpu
def test_the_benchmark_holds_on_this_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    found = bench("--minutes", "9")
    assert {line["verdict"] for line in found["lines"].values()} <= {"PASS", "no time left"}


@pytest.mark.slow
def test_a_line_that_takes_too_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "bandwidth"])
    made = Bench(arguments())
    made.deadline = time.monotonic() + 0.2
    monkeypatch.setattr(made, "bandwidth", lambda: (time.sleep(20), True))
    made.run("bandwidth")
    line = made.found["bandwidth"]
    assert line["verdict"] == "no time left" and line["seconds"] < 5


@pytest.mark.slow
def test_a_line_that_swallows_errors_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the engine does: an error in a step ends a round, and no more."""
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "bandwidth"])

    def stubborn() -> Any:
        for _ in range(100):
            with suppress(Exception):
                time.sleep(0.2)
        return {}, True

    made = Bench(arguments())
    made.deadline = time.monotonic() + 0.2
    monkeypatch.setattr(made, "bandwidth", stubborn)
    made.run("bandwidth")
    line = made.found["bandwidth"]
    assert line["verdict"] == "no time left" and line["seconds"] < 15
