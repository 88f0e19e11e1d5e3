"""Who sends a request, and what that visitor's browser remembers.

The address serves the rate limit; the Hub user is known where there is a login. What the browser
remembers is a convenience, never an authority: the arena checks every token and id anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gradio as gr
from starlette.requests import HTTPConnection

from empo_demo.dialogue import Dialogue
from empo_demo.errors import InvalidInput
from empo_demo.ui.ten import Ten
from empo_demo.ui.texts import LANGUAGES, Texts, preferred, texts_of
from empo_demo.votes import consent as consents

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


STORAGE_KEY = "empo-arena"
STORAGE_SECRET = "empo-arena-browser-state-1"
"""Only scrambles the browser's own storage, and must outlive a restart; it guards nothing."""
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Session:
    """The browser's memory: the voter's token, the round, a dialogue that is not sent yet.

    `consent` is the version agreed to, `refused`, or empty while undecided; `warned` marks the
    text whose personal data was pointed out; `language` is the one chosen or asked for; `ten` are
    the ten situations that the visitor judges in a row.
    """

    voter: str = ""
    consent: str = ""
    round: str = ""
    example: str = ""
    warned: str = ""
    language: str = ""
    draft: tuple[dict[str, str], ...] = field(default=())
    ten: Ten | None = None

    @classmethod
    def read(cls, stored: Any) -> Session:
        """From what the browser sent; anything odd counts as a new visit.

        A consent to an earlier text is none: the visitor is asked again, once.
        """
        if not isinstance(stored, Mapping):
            return cls()
        texts = {
            name: stored[name][:256]
            for name in ("voter", "consent", "round", "example", "warned", "language")
            if isinstance(stored.get(name), str)
        }
        if texts.get("consent", REFUSED) not in (REFUSED, *consents.VERSIONS):
            texts["consent"] = ""
        draft = stored.get("draft")
        session = cls(**texts)
        try:
            turns = Dialogue.from_messages(draft).messages() if isinstance(draft, list) else []
        except InvalidInput:
            turns = []
        return replace(session, draft=tuple(turns), ten=Ten.read(stored.get("ten")))

    def store(self) -> dict[str, Any]:
        ten = self.ten.store() if self.ten else None
        return {**asdict(self), "draft": list(self.draft), "ten": ten}

    def opened(self, round_id: str) -> Session:
        """With a round that was opened, of the ten where it is one of them."""
        ten = self.ten.opened(round_id, instead_of=self.round) if self.ten else None
        return replace(self, round=round_id, draft=(), ten=ten)

    @property
    def agreed(self) -> str | None:
        """The consent to pass on; None where the visitor refused."""
        return self.consent if self.consent not in ("", REFUSED) else None

    @property
    def dialogue(self) -> Dialogue:
        return Dialogue.from_messages(self.draft)


def say_of(stored: Any, request: gr.Request | None = None) -> Texts:
    """The words of the language that was chosen; before any choice, the one `request` asks for."""
    chosen = Session.read(stored).language
    if chosen not in LANGUAGES and request is not None:
        chosen = preferred((request.headers or {}).get("accept-language", ""))
    return texts_of(chosen)
