"""Who sends a request: the address for the rate limit, and the Hub user where there is a login."""

from __future__ import annotations

import os
from dataclasses import dataclass

import gradio as gr
from starlette.requests import HTTPConnection

LOGIN = "OAUTH_CLIENT_ID"
"""The variable that a Space with `hf_oauth: true` in its header has."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """`user` is the name of the Hub account, None without a login."""

    address: str | None = None
    user: str | None = None


NOBODY = Visitor()


def visitor_of(request: gr.Request | None) -> Visitor:
    return Visitor(address_of(request), user_of(request))


def address_of(request: gr.Request | HTTPConnection | None) -> str | None:
    """The visitor's address. Behind a trusted proxy the middleware has put the visitor's here."""
    if request is None or request.client is None:
        return None
    return str(request.client.host)


def user_of(request: gr.Request | None) -> str | None:
    """The Hub user of the signed session cookie that Gradio's login set."""
    if request is None or request.request is None or LOGIN not in os.environ:
        return None
    from gradio.oauth import _get_valid_oauth_info_from_session

    try:
        info = _get_valid_oauth_info_from_session(request.request.session)
    except (AssertionError, AttributeError):
        return None  # No login was set up: there is no session.
    name = ((info or {}).get("userinfo") or {}).get("preferred_username")
    return str(name)[:100] if name else None
