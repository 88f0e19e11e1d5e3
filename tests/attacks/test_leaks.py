"""What the page says where it is asked nonsense, or where something broke: plain words only."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.attacks.conftest import TEXT, Refused, Served, Stranger

INSIDE = ("Traceback", "site-packages", 'File "', "KeyError", "TypeError", "/tmp/", "sqlite")


def plain(text: str) -> None:
    assert not any(part in text for part in INSIDE), text


def test_a_function_that_does_not_exist(stranger: Stranger, capfd: Any) -> None:
    for body in (
        {"data": [], "fn_index": 999, "session_hash": "x"},
        {"data": [], "fn_index": -1, "session_hash": "x"},
    ):
        answer = stranger.post("queue/join", body)
        assert answer.status_code == 404 and "/gradio_api/info" in answer.text
    for name in ("call/v2/send", "call/v2/nothing", "call/nothing"):
        answer = stranger.post(name, {"data": []})
        assert answer.status_code == 404, name
        plain(answer.text)
    assert "Traceback" not in capfd.readouterr().err


def test_too_few_and_too_many_values(stranger: Stranger, capfd: Any) -> None:
    for values in ([], ["x"], ["x"] * 9):
        with pytest.raises(Refused) as caught:
            stranger.call("vote", *values)
        assert caught.value.status == 422 and "5 values" in caught.value.words
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_no_handler_of_the_page_falls_over_nonsense(
    served: Served, stranger: Stranger, capfd: Any
) -> None:
    """Every function of the page, with nothing and with the wrong kinds of values."""
    for fn in served.page.fns.values():
        if fn.fn is None or not fn.queue:
            continue
        for nonsense in (None, [None], 1e400):
            hash_ = f"n{fn._id}-{nonsense}"
            body = {"data": [nonsense] * len(fn.inputs), "fn_index": fn._id, "session_hash": hash_}
            content = json.dumps(body).replace("Infinity", "1e999")
            headers = {"content-type": "application/json"}
            joined = httpx.post(
                f"{served.url}/gradio_api/queue/join", content=content, headers=headers
            )
            if joined.status_code != 200:
                plain(joined.text)
                continue
            where = f"{served.url}/gradio_api/queue/data"
            plain(httpx.get(where, params={"session_hash": hash_}, timeout=60).text)
    err = capfd.readouterr().err
    assert "Traceback" not in err, err[-3000:]


def test_a_database_that_is_gone_is_not_named(stranger: Stranger, served: Served) -> None:
    path = served.arena.store.database.path
    voter = stranger.call("new_voter")
    round_id = stranger.answered(voter)
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        with pytest.raises(Refused) as caught:
            stranger.call("vote", voter, round_id, "a", {}, "")
        assert "not counted" in caught.value.words
        assert str(path.parent) not in caught.value.words
        assert path.name not in json.dumps(stranger.config())
    finally:
        away.rename(path)
    assert stranger.call("vote", voter, round_id, "a", {}, "")["created"]


def test_the_documented_names_are_the_documented_endpoints(served: Served) -> None:
    info = httpx.get(f"{served.url}/gradio_api/info").json()["named_endpoints"]
    assert set(info) == {
        "/open_round",
        "/analyze",
        "/retry",
        "/vote",
        "/stop",
        "/go_on",
        "/find_round",
        "/stream",
        "/new_voter",
        "/consent",
        "/my_votes",
        "/my_data",
        "/withdraw_vote",
        "/delete_my_data",
        "/end_visit",
    }


def test_no_frame_shows_one_side_alone(stranger: Stranger) -> None:
    voter = stranger.call("new_voter")
    for _ in range(8):
        frames = stranger.frames("stream", voter, stranger.opened(voter, TEXT))
        assert all(bool(frame["a"]) == bool(frame["b"]) for frame in frames)
