"""Who sends a request, as far as the rate limit and a Hub login need to know."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from empo_demo.ui.visitors import LOGIN, address_of, user_of


def request(session: dict[str, Any] | None = None, forwarded: str = "") -> Any:
    inner = SimpleNamespace() if session is None else SimpleNamespace(session=session)
    return SimpleNamespace(
        client=SimpleNamespace(host="10.0.0.1"), headers={"x-forwarded-for": forwarded},
        request=inner,
    )  # fmt: skip


def test_a_forwarded_address_counts_on_a_space_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(request(forwarded="1.2.3.4, 5.6.7.8")) == "10.0.0.1"
    monkeypatch.setenv("SYSTEM", "spaces")
    assert address_of(request(forwarded="1.2.3.4, 5.6.7.8")) == "5.6.7.8", (
        "a client forges the rest"
    )
    assert address_of(None) is None


def test_the_user_is_read_from_a_valid_login_only(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"userinfo": {"preferred_username": "ada"}, "expires_at": time.time() + 60}
    assert user_of(request({"oauth_info": info})) is None, "there is no login here"
    monkeypatch.setenv(LOGIN, "x")
    assert user_of(request({"oauth_info": info})) == "ada"
    assert user_of(request({"oauth_info": {**info, "expires_at": 1.0}})) is None
    assert user_of(request({})) is None and user_of(request()) is None
