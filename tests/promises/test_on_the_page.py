"""The promises that a stranger can only try to break on the running page."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from empo_demo.ui.serving.endpoints import ENDINGS
from empo_demo.votes.models import Vote
from tests.attacks.conftest import Refused, Served, Stranger, unpacked
from tests.conftest import ROSTER


@pytest.mark.slow
@pytest.mark.keeps("Votes are published 24 hours after they were cast at the earliest;")
def test_nobody_sees_a_vote_for_a_day(served: Served, stranger: Stranger) -> None:
    """The page, its configuration, and all that it answers to a stranger."""
    voter = stranger.call("new_voter")
    said = "A sentence that nobody else says."
    round_id = stranger.opened(voter, said)
    stranger.frames("stream", voter, round_id)
    receipt = stranger.call("vote", voter, round_id, "a", {}, "My own comment.")
    _age(served, hours=23.9)
    secrets = (said, "My own comment.", round_id, receipt["receipt"], voter)
    answers = _answers(served)
    assert len(answers) > 20
    for name, answer in answers.items():
        assert not any(secret in answer for secret in secrets), name
    _age(served, hours=0.2)
    assert said in _download(served)
    served.arena.set_ratings(voter, round_id, {}, "My later comment.")
    assert not any(part in _download(served) for part in (said, "later comment"))
    _age(served, hours=24.1)
    assert "My later comment." in _download(served)
    stranger.call("delete_my_data", voter)
    assert said not in _download(served)


@pytest.mark.keeps("Blindness protects honest voters only")
def test_nothing_names_a_contender_before_the_vote(served: Served, stranger: Stranger) -> None:
    voter = stranger.call("new_voter")
    round_id = stranger.opened(voter, "Who are these two?")
    names = [part for one in ROSTER.contenders for part in (one.id, one.label, one.revision)]
    answers = [stranger.call("find_round", voter, round_id), stranger.call("my_data", voter)]
    answers += stranger.frames("stream", voter, round_id)
    answers += [stranger.call("find_round", voter, round_id), stranger.call("my_data", voter)]
    for answer in answers:
        assert not any(name in json.dumps(answer) for name in names if name), answer
    for call in ("go_on", "withdraw_vote", "find_round", "vote"):
        values = (stranger.call("new_voter"), round_id, *(("a", {}, "") if call == "vote" else ()))
        with pytest.raises(Refused, match="no such round"):
            stranger.call(call, *values)
    reveal = stranger.call("vote", voter, round_id, "a", {}, "")["reveal"]
    assert {reveal["a"]["contender"], reveal["b"]["contender"]} == {"base", "aligned"}


@pytest.mark.keeps("hostile files, servers, pages and floods refused")
def test_hostile_pages_files_and_floods_are_refused(served: Served, stranger: Stranger) -> None:
    """Hostile servers: `tests/engine/test_remote.py`; hostile records: `tests/votes`."""
    foreign = stranger.post("call/new_voter", {"data": []}, origin="https://evil.example")
    assert foreign.status_code == 403
    sent = httpx.post(f"{served.url}/gradio_api/upload", files={"files": b"x"})
    assert sent.status_code == 404
    large = stranger.post("call/new_voter", {"data": ["x" * 1_100_000]})
    assert large.status_code == 413
    for path in ("/etc/passwd", str(served.arena.store.database.path), "../votes.sqlite3"):
        answer = httpx.get(f"{served.url}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def _age(served: Served, **by: float) -> None:
    since = timedelta(**by)
    with served.arena.store.database.write() as session:
        for vote in session.scalars(select(Vote)):
            vote.created_at -= since
            vote.comment_at = vote.comment_at and vote.comment_at - since


def _download(served: Served, form: str = "csv") -> str:
    """All that a download of the page says."""
    return "\n".join(unpacked(httpx.get(f"{served.url}/export/{form}")).values())


def _answers(served: Served) -> dict[str, str]:
    """What every handler, route and download of the page answers to one who knows nothing."""
    one = Stranger(served.url)
    token = one.call("new_voter")
    found = {
        path: httpx.get(f"{served.url}/{path}").text
        for path in (
            "",
            "config",
            "gradio_api/info",
            "gradio_api/queue/status",
            "gradio_api/startup-events",
            "monitoring",
        )
    }
    found |= {f"export/{form}": _download(served, form) for form in ENDINGS}
    for fn in served.page.fns.values():
        if fn.fn is None or not fn.queue:
            continue
        values = [_guess(component, token) for component in fn.inputs]
        session = f"guess{fn._id}"
        body = {"data": values, "fn_index": fn._id, "session_hash": session}
        if one.post("queue/join", body).status_code == 200:
            where = f"{served.url}/gradio_api/queue/data?session_hash={session}"
            found[f"{fn._id} {fn.api_name}"] = httpx.get(where, timeout=120).text
    return found


def _guess(component: Any, token: str) -> Any:
    """A value of the right kind that a stranger may try."""
    kind = type(component).__name__
    if kind == "BrowserState":
        return {"voter": token, "language": "en"}
    if kind == "Radio":
        return "csv"
    if kind == "Checkbox":
        return True
    if kind in ("Slider", "Number"):
        return getattr(component, "value", None) or 1
    if kind == "Textbox":
        return "%"
    return getattr(component, "value", None)
