"""Does one client with looping Explore threads lock other visitors out of the running app?

    python -m tests.bench.flood [--what explore,board] [--rounds 7] [--threads 6] [--json]

Starts `app.py` with the embedded pair on a port and a database of its own. Six threads of one
address then ask Explore for the longest generations, without pause. Meanwhile honest visitors
vote, once each, and open rounds. Spells with and without the flood alternate, so that what else
the machine does weighs on both. `allowed` and `unlimited` tell how many Explore comparisons an
address may have: the default, and as many as it likes (as if the flood had many addresses).
`--what` floods another door: the Board, /analyze, or the exports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.attacks.conftest import TEXT, Refused, Stranger
from tests.conftest import REPOSITORY

THREADS = 6
FLOODS = ("explore", "board", "analyze", "export")


@contextmanager
def app(**settings: str) -> Iterator[str]:
    """The address of `app.py` with the embedded pair, its models loaded; `settings` as EMPO_*."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="empo-flood-") as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("EMPO_", "GRADIO"))}
        environment |= {
            "EMPO_DATABASE": f"sqlite:///{folder}/votes.sqlite3",
            "EMPO_PRESET": "tiny",
            "GRADIO_SERVER_PORT": str(port),
            "EMPO_ROUNDS_PER_VOTER": "1000",
            "EMPO_ROUNDS_PER_ADDRESS": "10000",
        } | {f"EMPO_{name.upper()}": value for name, value in settings.items()}
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=REPOSITORY,
                env=environment,
                stderr=said,
                stdout=said,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a whole round was answered; `RuntimeError` with the log where the app ended."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"The app ended: {log.read_text()[-2000:]}")
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                break
        time.sleep(0.5)
    one = Stranger(url)
    one.answered(one.call("new_voter"))


def handler_of(config: dict[str, Any], elem_id: str, event: str = "click") -> int:
    """The number of a private handler, as any visitor's browser is told it."""
    (part,) = [
        part["id"]
        for part in config["components"]
        if elem_id in (part["props"].get("elem_id"), part["props"].get("id"))
    ]
    return next(
        int(one["id"])
        for one in config["dependencies"]
        if [part, event] in map(list, one["targets"])
    )


def request_of(what: str, url: str) -> tuple[str, str, Any]:
    """(method, address, body) of one request of a flood of `what`."""
    config = Stranger(url).config()
    join = f"{url}/gradio_api/queue/join"
    match what:
        case "explore":
            knobs: list[Any] = ["base", "aligned", 1.0, 1.0, 0, None, 2.0, 1.0, 1.1, 512]
            button = handler_of(config, "x-run")
            return "POST", join, {"data": [{}, [], TEXT, *knobs], "fn_index": button}
        case "board":
            tab = handler_of(config, "board", "select")
            return "POST", join, {"data": [{}], "fn_index": tab}
        case "analyze":
            return "POST", f"{url}/gradio_api/call/analyze", {"data": [TEXT * 30, []]}
        case "export":
            return "GET", f"{url}/export/csv", None
    raise ValueError(f"there is no flood of {what!r}; there are: {', '.join(FLOODS)}")


@contextmanager
def flood(
    url: str, threads: int = THREADS, pause: float = 0.05, what: str = "explore"
) -> Iterator[Counter[int]]:
    """Threads that ask for `what`, again and again; yields the HTTP statuses.

    They do not wait for what they asked for: a place that is refused is asked for again at once.
    """
    method, address, body = request_of(what, url)
    over, statuses = threading.Event(), Counter[int]()

    def loop(thread: int) -> None:
        mine = {**body, "session_hash": f"flood{thread}"} if body else None
        with httpx.Client(timeout=60) as client:
            while not over.is_set():
                with suppress(httpx.HTTPError):
                    answer = client.request(method, address, json=mine)
                    statuses[answer.status_code] += 1
                over.wait(pause)

    running = [threading.Thread(target=loop, args=(n,), daemon=True) for n in range(threads)]
    for one in running:
        one.start()
    time.sleep(2.0)
    try:
        yield statuses
    finally:
        over.set()
        for one in running:
            one.join()


def first_words(stranger: Stranger) -> float:
    """Seconds from opening a round to its first words."""
    voter = stranger.call("new_voter")
    began = time.monotonic()
    round_id = stranger.opened(voter)
    answer = stranger.post("call/stream", {"data": [voter, round_id]})
    answer.raise_for_status()
    where = f"{stranger.url}/gradio_api/call/stream/{answer.json()['event_id']}"
    with httpx.stream("GET", where, timeout=120) as frames:
        for line in frames.iter_lines():
            if line.startswith("data: [{") and '"a": ""' not in line:
                return time.monotonic() - began
    raise AssertionError("the round had no words")


def votes(stranger: Stranger, rounds: list[tuple[str, str]]) -> tuple[int, list[str], list[float]]:
    """One vote per (voter, round), tried once: how many counted, the refusals, the seconds."""
    accepted, refused, seconds = 0, list[str](), list[float]()
    for voter, round_id in rounds:
        began = time.monotonic()
        try:
            accepted += stranger.call("vote", voter, round_id, "a", {}, "")["created"]
        except Refused as error:
            refused.append(str(error))
        seconds.append(time.monotonic() - began)
    return accepted, refused, seconds


def run(
    ballots: int, rounds: int, threads: int, what: str = "explore", **settings: str
) -> dict[str, Any]:
    """`ratio` is the median of first words with the flood over that without."""
    alone: list[float] = []
    flooded: list[float] = []
    with app(**settings) as url:
        one = Stranger(url)
        voters = [one.call("new_voter") for _ in range(ballots)]
        waiting = [(voter, one.answered(voter)) for voter in voters]
        answers: Counter[int] = Counter()
        accepted, refused, seconds = votes(one, [])
        for spell in range(rounds):
            alone.append(first_words(one))
            share = waiting[spell::rounds]
            with flood(url, threads, what=what) as statuses:
                flooded.append(first_words(one))
                counted, no, took = votes(one, share)
            accepted, refused, seconds = accepted + counted, refused + no, seconds + took
            answers += statuses
            if spell + 1 < rounds:
                time.sleep(3.0)
    return {
        "votes": ballots,
        "accepted_at_first_try": accepted,
        "refusals": refused,
        "slowest_vote_s": round(max(seconds), 2),
        "first_words_alone_s": [round(s, 2) for s in alone],
        "first_words_flooded_s": [round(s, 2) for s in flooded],
        "ratio": round(median(flooded) / median(alone), 2),
        "flood_answers": {str(status): n for status, n in sorted(answers.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--what", default="explore", help=f"{', '.join(FLOODS)}; commas between")
    parser.add_argument("--database", type=Path, help="votes that are there before; it is copied")
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    found: dict[str, Any] = {"threads": options.threads}
    for what in options.what.split(","):
        for name, limit in (("allowed", "60"), ("unlimited", "100000")):
            if what != "explore" and name == "allowed":
                continue
            with tempfile.TemporaryDirectory(prefix="empo-flood-votes-") as folder:
                more = {"explores_per_address": limit}
                if options.database:
                    shutil.copy(options.database, f"{folder}/votes.sqlite3")
                    more["database"] = f"sqlite:///{folder}/votes.sqlite3"
                one = run(options.votes, options.rounds, options.threads, what, **more)
            found[f"{what} {name}" if what == "explore" else what] = one
            if not options.json:
                for key, value in one.items():
                    print(f"{what:8} {name:10} {key:24} {value}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
