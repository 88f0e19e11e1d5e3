"""A download is no copy that outlives the deletion of what it holds."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import update

from empo_demo.votes.models import Vote, now
from tests.attacks.conftest import TEXT, Served, Stranger


@pytest.mark.slow
def test_no_download_outlives_deletion(served: Served, stranger: Stranger) -> None:
    voter = stranger.call("new_voter")
    stranger.call("vote", voter, stranger.answered(voter), "a", {}, "")
    for form in ("trl", "kto", "csv"):
        young = httpx.get(f"{served.url}/export/{form}")
        assert young.status_code == 200 and TEXT not in young.text, "a day must pass first"
    with served.arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=25)))
    (make,) = [
        fn
        for fn in served.page.fns.values()
        if any(getattr(one, "choices", None) and "TRL" in str(one.choices) for one in fn.inputs)
    ]
    body = {"data": [{}, "trl"], "fn_index": make._id, "session_hash": "d"}
    stranger.post("queue/join", body).raise_for_status()
    said = httpx.get(f"{served.url}/gradio_api/queue/data?session_hash=d", timeout=60).text
    kept = re.findall(r'"path": ?"([^"]+)"', said)
    where = f"{served.url}/export/trl"
    before = httpx.get(where)
    stranger.call("delete_my_data", voter)
    for path in kept:
        assert httpx.get(f"{served.url}/gradio_api/file={path}").status_code != 200, path
    assert TEXT in before.text and "attachment" in before.headers["content-disposition"]
    assert before.headers["cache-control"] == "no-store"
    assert httpx.get(where).text.strip() == ""


def test_a_format_that_does_not_exist(served: Served) -> None:
    for form in ("jsonl", "parquet", "..%2Fvotes.sqlite3"):
        assert httpx.get(f"{served.url}/export/{form}").status_code == 404
