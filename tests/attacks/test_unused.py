"""What Gradio serves beside the page, and what this page has no use for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.attacks.conftest import Served, Stranger

FILE = {"path": "https://example.org/evil.html", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "process_recording"),  # It would run ffmpeg on a stranger's film.
        ("GET", "deep_link?session_hash=x"),  # It would write what a session shows to the disk.
        ("GET", "vibe-code"),
        ("POST", "vibe-edit"),
        ("POST", "stream/x/close"),
        ("GET", "custom_component/x/client/component/index.js"),
        ("GET", "proxy=https://x.hf.space/"),
    ],
)
def test_what_the_page_does_not_use_does_not_exist(served: Served, method: str, path: str) -> None:
    files = {"video": b"film"} if path == "process_recording" else None
    answer = httpx.request(method, f"{served.url}/gradio_api/{path}", files=files, timeout=20)
    assert answer.status_code == 404 and answer.json()["detail"] == "not found"


@pytest.mark.parametrize("path", ["info", "app_id", "openapi.json", "theme.css", "login_check"])
def test_what_the_page_and_its_clients_use_is_there(served: Served, path: str) -> None:
    assert httpx.get(f"{served.url}/gradio_api/{path}").status_code == 200


def test_the_page_itself_travels_compressed(served: Served) -> None:
    with httpx.stream("GET", served.url, headers={"accept-encoding": "gzip, br"}) as answer:
        packed = sum(len(part) for part in answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip" and packed < 40_000
    assert "window.gradio_config" in httpx.get(served.url).text


@pytest.mark.parametrize("hidden", [FILE, [FILE], {"deep": [{"er": FILE}]}])
def test_no_stranger_has_the_server_fetch_an_address(
    served: Served, monkeypatch: pytest.MonkeyPatch, hidden: Any
) -> None:
    """Gradio takes such a value for a file, in every handler, and would fetch and keep it."""
    fetched: list[str] = []

    async def fetch(url: str, cache_dir: str) -> str:
        fetched.append(url)
        return f"{cache_dir}/evil.html"

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetch)
    stranger = Stranger(served.url)
    for fn in (served.handler("keep"), served.handler("vote")):
        session = f"f{fn._id}{len(str(hidden))}"
        body = {"data": [hidden] * len(fn.inputs), "fn_index": fn._id, "session_hash": session}
        assert stranger.post("queue/join", body).status_code == 200
        where = f"{served.url}/gradio_api/queue/data"
        told = httpx.get(where, params={"session_hash": session}, timeout=60).text
        assert fetched == []
        assert "of a kind that cannot be used here" in told
