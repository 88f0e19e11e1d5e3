"""One client cannot keep the others from voting, stopping or being answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.attacks.conftest import TEXT, Refused, Served, Stranger

THREADS = 6


@contextmanager
def flood(served: Served) -> Iterator[list[int]]:
    """Threads that ask Explore for long generations, again and again; yields their answers."""
    number = served.handler("play")._id
    values: list[Any] = [[], TEXT, "base", "aligned", 1.0, 1.0, 0, 0.7, 0.9, 1.1, 512]
    over, statuses = threading.Event(), []

    def loop(thread: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                body = {"data": values, "fn_index": number, "session_hash": f"flood{thread}"}
                with suppress(httpx.HTTPError):
                    answer = client.post(f"{served.url}/gradio_api/queue/join", json=body)
                    statuses.append(answer.status_code)
                time.sleep(0.01)

    threads = [threading.Thread(target=loop, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def first_words(stranger: Stranger) -> float:
    """Seconds from opening a round to its first words."""
    voter = stranger.call("new_voter")
    began = time.monotonic()
    round_id = stranger.opened(voter)
    answer = stranger.post("call/stream", {"data": [voter, round_id]})
    answer.raise_for_status()
    where = f"{stranger.url}/gradio_api/call/stream/{answer.json()['event_id']}"
    with httpx.stream("GET", where, timeout=60) as frames:
        for line in frames.iter_lines():
            if line.startswith("data: [{") and '"a": ""' not in line:
                return time.monotonic() - began
    raise AssertionError("the round had no words")


def test_votes_and_rounds_go_on_while_explore_is_flooded(
    served: Served, stranger: Stranger
) -> None:
    voters = [stranger.call("new_voter") for _ in range(20)]
    rounds = [stranger.answered(voter) for voter in voters]
    alone = sorted(first_words(stranger) for _ in range(3))[1]
    accepted, refused = 0, []
    with flood(served) as statuses:
        flooded = sorted(first_words(stranger) for _ in range(3))[1]
        for voter, round_id in zip(voters, rounds, strict=True):
            try:
                accepted += stranger.call("vote", voter, round_id, "a", {}, "")["created"]
            except Refused as error:
                refused.append(str(error))
    assert (accepted, refused) == (20, []), "every vote is accepted at the first try"
    assert statuses.count(429) + statuses.count(503) > statuses.count(200), "Explore is bounded"
    assert flooded < 3 * alone + 0.3, f"first words after {flooded:.2f} s, alone {alone:.2f} s"


def test_a_direct_call_does_not_pass_the_queue_by(stranger: Stranger) -> None:
    assert stranger.post("run/new_voter", {"data": []}).status_code == 404
    assert stranger.post("api/new_voter", {"data": []}).status_code == 404


def test_explore_counts_against_the_address(tmp_path: Any) -> None:
    from tests.attacks.conftest import serve

    for served in serve(tmp_path, explores_per_address=2):
        play = served.handler("play")
        said = []
        for _ in range(3):
            body = {
                "data": [[], TEXT, "base", "aligned", 1.0, 1.0, 0, 0.7, 0.9, 1.1, 20],
                "fn_index": play._id,
                "session_hash": f"s{len(said)}",
            }
            stranger = Stranger(served.url)
            stranger.post("queue/join", body).raise_for_status()
            where = f"{served.url}/gradio_api/queue/data?session_hash=s{len(said)}"
            said.append(httpx.get(where, timeout=60).text)
        assert "hard" in said[0] and "hard" in said[1]
        assert ["2 comparisons" in one for one in said] == [False, False, True], said[2]


@pytest.mark.parametrize("lane", ["vote", "stop", "delete_my_data", "end_visit", "find_round"])
def test_what_ends_a_round_has_a_lane_of_its_own(served: Served, lane: str) -> None:
    generation = {served.handler(name).concurrency_id for name in ("stream", "play", "send")}
    assert served.handler(lane).concurrency_id not in generation
