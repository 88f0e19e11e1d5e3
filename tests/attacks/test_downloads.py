"""A download is no copy that outlives the deletion of what it holds."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from empo_demo.ui.serving.endpoints import ENDINGS
from empo_demo.votes.consent import VERSION
from empo_demo.votes.models import Vote, now
from tests.attacks.conftest import TEXT, Served, Stranger, unpacked, votes_of


@pytest.mark.slow
def test_no_download_outlives_deletion(served: Served, stranger: Stranger) -> None:
    voter = stranger.call("new_voter")
    stranger.call("vote", voter, stranger.answered(voter), "a", {}, "")
    for form in ("trl", "kto", "csv"):
        young = httpx.get(f"{served.url}/export/{form}")
        assert young.status_code == 200, young.text
        assert not any(TEXT in text for text in unpacked(young).values()), "a day must pass first"
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
    assert TEXT in votes_of(before) and "attachment" in before.headers["content-disposition"]
    assert before.headers["cache-control"] == "no-store"
    assert votes_of(httpx.get(where)).strip() == ""


def test_a_format_that_does_not_exist(served: Served) -> None:
    for form in ("jsonl", "parquet", "..%2Fvotes.sqlite3"):
        assert httpx.get(f"{served.url}/export/{form}").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("form", ENDINGS)
def test_a_download_is_its_votes_with_a_card_and_both_load_as_the_card_says(
    served: Served,
    stranger: Stranger,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    voter = stranger.call("new_voter")
    stranger.call("vote", voter, stranger.answered(voter), "a", {}, "")
    with served.arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=25)))
    found = httpx.get(f"{served.url}/export/{form}")
    assert f"empo-votes-{form}.zip" in found.headers["content-disposition"]
    file, card = unpacked(found)
    assert (file, card) == (f"empo-votes-{form}.{ENDINGS[form]}", f"empo-votes-{form}.README.md")
    said = unpacked(found)[card]
    assert VERSION in said and "rev-aligned-1" in said and "CC BY-NC 4.0" in said
    assert "withdraw a vote" in said and "from trl import" in said
    for name, text in unpacked(found).items():
        (tmp_path / name).write_text(text, encoding="utf8")
    monkeypatch.chdir(tmp_path)
    (load,) = re.findall(r"^votes = (load_dataset\(.*\))$", said, re.MULTILINE)
    votes = eval(load, {"load_dataset": datasets.load_dataset})
    assert set(votes.column_names) >= {"round_id", "voter", "consent"} and len(votes) >= 1
