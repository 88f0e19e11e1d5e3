"""What the browser remembers: the voter's token, the consent, the round, a dialogue not yet sent.

It is a convenience, never an authority: the arena checks every token and id anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gradio as gr

from empo_demo.dialogue import Dialogue
from empo_demo.errors import InvalidInput
from empo_demo.ui.texts import LANGUAGES, Texts, preferred, texts_of
from empo_demo.votes import consent as consents

STORAGE_KEY = "empo-arena"
STORAGE_SECRET = "empo-arena-browser-state-1"
"""Only scrambles the browser's own storage, and must outlive a restart; it guards nothing."""
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Session:
    """`consent` is the version agreed to, `refused`, or empty while undecided; `warned` marks the
    text whose personal data was pointed out; `language` is the one chosen or asked for."""

    voter: str = ""
    consent: str = ""
    round: str = ""
    example: str = ""
    warned: str = ""
    language: str = ""
    draft: tuple[dict[str, str], ...] = field(default=())

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
        return replace(session, draft=tuple(turns))

    def store(self) -> dict[str, Any]:
        return {**asdict(self), "draft": list(self.draft)}

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
