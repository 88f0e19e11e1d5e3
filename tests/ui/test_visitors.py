"""Who sends a request, as far as the rate limit and a Hub login need to know."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from empo_demo.errors import SettingsError
from empo_demo.settings import load_settings
from empo_demo.ui.serving.middleware import Doors, Guard
from empo_demo.ui.visitors import LOGIN, address_of, user_of


def request(session: dict[str, Any] | None = None) -> Any:
    inner = SimpleNamespace() if session is None else SimpleNamespace(session=session)
    return SimpleNamespace(client=SimpleNamespace(host="10.0.0.1"), headers={}, request=inner)


def reached(doors: Doors, peer: str, forwarded: str) -> str | None:
    """The address that the app sees behind the wall."""
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(address_of(HTTPConnection(scope)))

    headers = [(b"host", b"x"), (b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "client": (peer, 1), "headers": headers}
    with pytest.raises(StopIteration):  # a coroutine that waits for nothing ends at once
        Guard(app, doors)(scope, None, None).send(None)  # type: ignore[arg-type]
    return seen[0]


def test_a_forwarded_address_counts_behind_a_trusted_proxy_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forged = "1.2.3.4, 5.6.7.8"
    here = Doors.of(load_settings(), "0.0.0.0")
    for peer in ("127.0.0.1", "10.0.0.1"):
        assert reached(here, peer, forged) == peer
    named = Doors.of(load_settings(trusted_proxies="10.0.0.0/8"), "0.0.0.0")
    assert reached(named, "10.0.0.1", forged) == "5.6.7.8", "a client forges the rest"
    assert reached(named, "9.9.9.9", forged) == "9.9.9.9"
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_HOST", "me-arena.hf.space")
    space = Doors.of(load_settings(), "0.0.0.0")
    assert reached(space, "10.20.1.7", forged) == "5.6.7.8", "the platform's proxy"
    assert space.hosts is None and space.own == ("me-arena.hf.space",)
    assert address_of(None) is None


def test_a_proxy_that_is_no_network_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="EMPO_TRUSTED_PROXIES holds 'nginx'"):
        load_settings(trusted_proxies="nginx")
    with pytest.raises(SettingsError, match="EMPO_ALLOWED_HOSTS"):
        load_settings(allowed_hosts="https://arena.example.org/")


def test_the_user_is_read_from_a_valid_login_only(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"userinfo": {"preferred_username": "ada"}, "expires_at": time.time() + 60}
    assert user_of(request({"oauth_info": info})) is None, "there is no login here"
    monkeypatch.setenv(LOGIN, "x")
    assert user_of(request({"oauth_info": info})) == "ada"
    assert user_of(request({"oauth_info": {**info, "expires_at": 1.0}})) is None
    assert user_of(request({})) is None and user_of(request()) is None
