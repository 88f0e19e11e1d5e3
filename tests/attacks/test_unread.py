"""A client that calls and never fetches the answers takes nothing from the others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from empo_demo.ui.serving import gradio_patches
from tests.attacks.conftest import TEXT, Served, Stranger


def called(stranger: Stranger, calls: int) -> None:
    """That many calls of one thread, none of which is fetched."""
    with httpx.Client(timeout=60) as client:
        for _ in range(calls):
            client.post(f"{stranger.url}/gradio_api/call/consent", json={"data": []})


@pytest.mark.slow
def test_calls_that_nobody_fetches_end_no_stream_that_somebody_reads(
    served: Served, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = served.page._queue.pending_messages_per_session
    for where, name in ((gradio_patches, "MOST_SESSIONS"), (messages, "max_size")):
        monkeypatch.setattr(where, name, 20, raising=False)
    play, handler = "play", served.handler("play")
    knobs = ["base", "aligned", 1.0, 1.0, 0, None, 2.0, 1.0, 1.1, 512]
    body = {"data": [{}, [], TEXT, *knobs], "fn_index": handler._id, "session_hash": play}
    stranger.post("queue/join", body).raise_for_status()
    where = f"{served.url}/gradio_api/queue/data?session_hash={play}"
    said: list[dict[str, Any]] = []
    with (
        ThreadPoolExecutor(3) as pool,
        httpx.stream("GET", where, timeout=120) as answer,
    ):
        flood: list[Any] = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                said.append(json.loads(line[6:]))
            if not flood and said[-1:] and said[-1]["msg"] == "process_generating":
                flood = [pool.submit(called, stranger, 40) for _ in range(3)]
    assert said[-1]["msg"] == "close_stream" and said[-2]["success"], said[-1]
    assert all(one.done() for one in flood), "the flood came while it streamed"
    assert len(messages) <= 20
    assert len(served.page._queue.pending_event_ids_session) <= 21


@pytest.fixture
def known(stranger: Stranger) -> Iterator[str]:
    voter = stranger.call("new_voter")
    for _ in range(10):
        stranger.opened(voter, "It rained all day long. " * 80)
    yield voter
    stranger.call("delete_my_data", voter)


@pytest.mark.slow
def test_answers_that_nobody_fetches_are_kept_in_bounded_memory(
    served: Served, stranger: Stranger, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradio_patches, "MOST_BYTES", 100_000, raising=False)
    for _ in range(20):
        stranger.post("call/my_data", {"data": [known]}).raise_for_status()
    deadline = time.monotonic() + 60
    while served.page._queue.event_ids_to_events and time.monotonic() < deadline:
        time.sleep(0.05)
    kept = sum(
        gradio_patches.size_of(getattr(message[-1], "output", None))
        for queue in served.page._queue.pending_messages_per_session.values()
        for message in queue._queue
    )
    assert kept <= 100_000, f"{kept:,} characters wait for nobody"
    assert len(stranger.call("my_data", known)) == 10, "who fetches is answered"


def test_an_answer_that_nobody_fetched_is_gone_within_the_hour(
    served: Served, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold a text without consent, and who calls chooses the session's name."""
    monkeypatch.setattr(gradio_patches, "MOST_SECONDS", 1.0)
    voter, messages = stranger.call("new_voter"), served.page._queue.pending_messages_per_session
    handler = served.handler("open_round")
    body = {"data": [voter, [], TEXT, ""], "fn_index": handler._id, "session_hash": "left"}
    stranger.post("queue/join", body).raise_for_status()
    deadline = time.monotonic() + 30
    while "left" in messages and time.monotonic() < deadline:
        time.sleep(0.1)
    answer = httpx.get(f"{stranger.url}/gradio_api/queue/data?session_hash=left", timeout=60)
    assert TEXT not in answer.text and "Not Found" in answer.text
    stranger.call("end_visit", voter)


def test_what_is_read_counts_no_more() -> None:
    gone: list[str] = []
    sessions = gradio_patches.Unread(gone.append)
    sessions["a"] = sessions["b"] = None
    for name in ("a", "b", "b"):
        sessions[name].put_nowait(Said("x" * 1000))
    first = sessions.bytes
    assert sessions["b"].get_nowait().output == "x" * 1000
    assert 1000 < first - sessions.bytes < 2000
    held = sessions["b"]
    del sessions["b"]
    left = sessions.bytes
    held.get_nowait()
    assert sessions.bytes == left and gone == []


def test_a_session_has_a_short_name_and_no_call_is_remembered(
    served: Served, stranger: Stranger
) -> None:
    new_voter = served.handler("new_voter")
    body = {"data": [], "fn_index": new_voter._id, "session_hash": "x" * 100_000}
    answer = stranger.post("queue/join", body)
    assert answer.status_code == 422 and "100 characters" in answer.text
    assert stranger.call("new_voter")
    assert not served.page._queue.event_analytics


class Said:
    def __init__(self, output: str) -> None:
        self.output = output


def test_a_session_that_is_not_there_is_told_without_a_traceback(
    stranger: Stranger, capfd: Any
) -> None:
    for path in ("queue/data?session_hash=nobody", "call/vote/nothing"):
        answer = httpx.get(f"{stranger.url}/gradio_api/{path}", timeout=60)
        assert "Not Found" in answer.text
    assert "Traceback" not in capfd.readouterr().err
