"""All that the default pair owes its visitors on two cores, in one run, beside what it is owed.

    python -m tests.bench.default_pair [--wheels FOLDER] [--old REV] [--only step page start app]

step    a pair beside one reply and transformers' `generate` (tests.bench.pair)
rounds  16 rounds at once beside one after another; the 10th turn beside the first
        (tests.bench.rounds)
page    today's page beside that of an older commit (tests.bench.page)
start   `app.py` with empty caches, the wheel from FOLDER: peak memory during the first conversion
app     `app.py` from its cache: page and models ready, first word, memory after 16 rounds at once

A figure that misses what is owed is marked. Run it on quiet cores: every figure but those of memory
and of processor time grows with what else the machine does. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from empo_demo.settings import ASSETS
from empo_demo.smollm2.package import SMOLLM2
from tests.attacks.conftest import Refused, Stranger
from tests.conftest import REPOSITORY

OWED = {
    "ms_step_of_a_pair": 25.0,
    "pair_over_generate": 0.45,
    "pair_over_one": 1.10,
    "pair_memory_over_one": 1.10,
    "sixteen_at_once_times_cheaper": -5.0,
    "turn_10_over_1": 2.0,
    "page_stands_s_over_old": 1.05,
    "first_start_peak_mb": 2500.0,
    "models_ready_s": 10.0,
    "first_word_s": 0.4,
    "peak_mb_after_16_rounds": 1600.0,
}
"""The most that each figure may be; the least, where it is negative."""
SAID = (
    "I failed my driving test for the third time today.",
    "My daughter has just learnt to walk!",
    "My landlord kept our whole deposit, and I don't know what to do.",
    "My best friend moves to another country next week.",
)
WORDS = 20
"""Rounds whose first word is timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURE, default=list(MEASURE))
    parser.add_argument("--wheels", type=Path, help="folder of the wheel, for `start`")
    parser.add_argument("--old", default="3db7e19", help="the commit whose page is compared")
    parser.add_argument("--rounds", type=int, default=5, help="of each bench inside")
    options = parser.parse_args()
    found: dict[str, float] = {}
    for part in options.only:
        found |= MEASURE[part](options)
        print(f"{part} done", file=sys.stderr, flush=True)
    print("| figure | found | owed | |\n|---|---|---|---|")
    for name, value in found.items():
        verdict = "missed" if _missed(name, value) else ""
        print(f"| {name} | {value:.2f} | {_owed(name)} | {verdict} |")
    print(json.dumps(found | {"load": os.getloadavg()[0]}))


def _owed(name: str) -> str:
    if name not in OWED:
        return ""
    return f"{'at least' if OWED[name] < 0 else 'at most'} {abs(OWED[name]):g}"


def _missed(name: str, value: float) -> bool:
    limit = OWED.get(name)
    return limit is not None and (value < -limit if limit < 0 else value > limit)


def bench(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that another bench prints last."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    text = done.stdout.strip()
    whole: dict[str, Any] = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
    return whole


def models() -> tuple[str, ...]:
    """The arguments that name the pair to other benches."""
    aligned = str(ASSETS / "smollm2" / "aligned")
    return ("--base", str(SMOLLM2.folder), "--adapter", aligned, "--quantization", "none")


def step(options: argparse.Namespace) -> dict[str, float]:
    one = bench("pair", "--json", *models(), "--rounds", str(options.rounds))
    times = one["ms_per_step"]
    return {
        "ms_step_of_a_pair": times["pair"],
        "ms_step_of_generate": times["generate"],
        "pair_over_generate": times["pair"] / times["generate"],
        "pair_over_one": one["pair_over_one"],
        "pair_memory_over_one": one["memory_pair_over_one"],
    }


def rounds(options: argparse.Namespace) -> dict[str, float]:
    parts = ("--only", "together", "turns", "--turns", "10", "--repeat", "3")
    one = bench("rounds", "--json", *models(), *parts)
    return {
        "sixteen_at_once_times_cheaper": one["cpu_16_over_serial"],
        "turn_10_over_1": one["turn_last_over_1"],
    }


def page(options: argparse.Namespace) -> dict[str, float]:
    one = bench("page", "--old", options.old)
    ratios = {name: row["ratio"] for name, row in one.items() if isinstance(row, dict)}
    return {f"page_{name}_over_old": ratio for name, ratio in ratios.items()}


def start(options: argparse.Namespace) -> dict[str, float]:
    if options.wheels is None:
        print("start is left out: --wheels names no folder", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as cache:
        more = {"PIP_FIND_LINKS": str(options.wheels.resolve()), "PIP_NO_INDEX": "1"}
        with running(HF_HOME=cache, HF_ASSETS_CACHE=f"{cache}/assets", **more) as one:
            return {"first_start_s": one.ready, "first_start_peak_mb": one.peak()}


def app(options: argparse.Namespace) -> dict[str, float]:
    with running():  # what a first start leaves behind is there afterwards
        pass
    with running() as one:
        return figures(one)


def figures(one: App) -> dict[str, float]:
    stranger = Stranger(one.url)
    voter = stranger.call("new_voter")
    words = [first_word(stranger, voter, SAID[i % len(SAID)]) for i in range(WORDS)]

    def visit(number: int) -> None:
        visitor = Stranger(one.url)
        first_word(visitor, visitor.call("new_voter"), SAID[number % len(SAID)])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(visit, range(16)))
    return {
        "page_answers_s": one.page,
        "models_ready_s": one.ready,
        "first_word_s": statistics.median(words),
        "peak_mb_after_16_rounds": one.peak(),
    }


def first_word(stranger: Stranger, voter: str, said: str) -> float:
    """Seconds from Send to the first word of either side. The round is read to its end."""
    consent = stranger.call("consent")["version"]
    began = time.perf_counter()
    opened = stranger.call("open_round", voter, [], said, consent)["round_id"]
    joined = stranger.post("call/stream", {"data": [voter, opened]}).json()["event_id"]
    first = 0.0
    with httpx.stream(
        "GET", f"{stranger.url}/gradio_api/call/stream/{joined}", timeout=120
    ) as answer:
        for line in answer.iter_lines():
            if first or not line.startswith("data: ["):
                continue
            frame = json.loads(line.removeprefix("data: "))[0]
            if frame.get("a") or frame.get("b"):
                first = time.perf_counter() - began
    return first


@dataclass
class App:
    """A running `app.py`: seconds from its start until its page answered, and until a round did."""

    url: str
    process: subprocess.Popen[bytes]
    page: float
    ready: float

    def peak(self) -> float:
        """MB at the peak of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024


@contextmanager
def running(**more: str) -> Iterator[App]:
    """`app.py` as a visitor meets it, with the environment `more`, once its models answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EMPO_", "GRADIO"))}
        environment = kept | {
            "EMPO_DATABASE": f"sqlite:///{folder}/votes.sqlite3",
            "GRADIO_SERVER_PORT": str(port),
            "EMPO_ROUNDS_PER_VOTER": "1000",
            "EMPO_ROUNDS_PER_ADDRESS": "10000",
        }
        began = time.perf_counter()
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=REPOSITORY,
                env=environment | more,
                stdout=log,
                stderr=log,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            stands = _once(lambda: httpx.get(url, timeout=5).raise_for_status(), process, began)
            ready = _once(lambda: _answers(url), process, began)
            yield App(url, process, stands, ready)
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> None:
    one = Stranger(url)
    one.answered(one.call("new_voter"))


def _once(work: Any, process: subprocess.Popen[bytes], began: float) -> float:
    """Seconds since `began` at which `work` first raised nothing."""
    for _ in range(3000):
        if process.poll() is not None:
            raise RuntimeError("app.py ended")
        with suppress(httpx.HTTPError, Refused):
            work()
            return time.perf_counter() - began
        time.sleep(0.1)
    raise RuntimeError("app.py did not get ready")


MEASURE = {"step": step, "rounds": rounds, "page": page, "start": start, "app": app}

if __name__ == "__main__":
    main()
