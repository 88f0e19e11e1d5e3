"""Who sends a request, and what that visitor's browser remembers.

The address serves the rate limit; the Hub user is known where there is a login. What the browser
remembers is a convenience, never an authority: the arena checks every token and id anew.

It remembers ten in a row, too: which example situations they are, and which rounds were opened on
them. One of the ten is a check of attention. It is drawn here as each round is opened, and nobody
can tell it before the vote.
"""

from __future__ import annotations

import os
import random
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.requests import HTTPConnection

from empo_demo.board.habits import Answer
from empo_demo.dialogue import Dialogue
from empo_demo.errors import InvalidInput
from empo_demo.ui.examples import Example, examples
from empo_demo.ui.texts import LANGUAGES, Texts, preferred, texts_of
from empo_demo.votes import consent as consents

if TYPE_CHECKING:
    from empo_demo.arena.rounds import RoundView

TEN = 10
MIXED = frozenset({"nostalgic", "grateful", "caring"})
"""The emotions of situations that a sad word fits, too. A check there would not be a fair one."""
_ROUND = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Ten:
    """`places` are the ten situations' places among the examples; `rounds` the ids so far."""

    places: tuple[int, ...]
    rounds: tuple[str, ...] = ()

    @classmethod
    def draw(cls) -> Ten:
        """Ten situations in random order."""
        return cls(tuple(random.sample(range(len(examples())), TEN)))

    @classmethod
    def read(cls, stored: Any) -> Ten | None:
        """From what the browser sent; None for anything odd."""
        if not isinstance(stored, Mapping):
            return None
        places, rounds = stored.get("places"), stored.get("rounds")
        known = range(len(examples()))
        if not isinstance(places, list) or not isinstance(rounds, list):
            return None
        if len(places) != TEN or any(
            type(place) is not int or place not in known for place in places
        ):
            return None
        if len(rounds) > TEN or len(set(places)) != TEN:
            return None
        if not all(isinstance(round_id, str) and _ROUND.match(round_id) for round_id in rounds):
            return None
        return cls(tuple(places), tuple(rounds))

    def store(self) -> dict[str, Any]:
        return {"places": list(self.places), "rounds": list(self.rounds)}

    @property
    def turn(self) -> int:
        """The number of the situation that is open, from 1; 0 before the first one."""
        return len(self.rounds)

    @property
    def done(self) -> bool:
        """Whether all ten rounds were opened."""
        return self.turn == TEN

    @property
    def next(self) -> Example:
        """The situation that comes next."""
        return examples()[self.places[self.turn]]

    def opened(self, round_id: str, instead_of: str = "") -> Ten:
        """With one more round, or with a round that was tried again."""
        kept = self.rounds[:-1] if self.rounds and self.rounds[-1] == instead_of else self.rounds
        return replace(self, rounds=(*kept, round_id))

    def check_now(self, before: Iterable[RoundView]) -> bool:
        """Draw whether the next round is the check; `before` are the rounds so far.

        Each situation that a check is fair on is equally likely, and the last of them has it if no
        other one had.
        """
        if any(view.receipt and view.receipt.reveal.attention_check for view in before):
            return False
        fair = [place for place in self.places if examples()[place].emotion not in MIXED]
        left = [place for place in fair if place in self.places[self.turn :]]
        return self.places[self.turn] in left and secrets.randbelow(len(left)) == 0


def votes_of(views: Iterable[RoundView]) -> list[tuple[Answer, Answer, str]]:
    """The votes of rounds that were no check, as the counts of habits take them."""
    votes = []
    for view in views:
        receipt = view.receipt
        if receipt is not None and not receipt.reveal.attention_check:
            a = Answer(receipt.reveal.a.contender, view.replies["a"].text)
            b = Answer(receipt.reveal.b.contender, view.replies["b"].text)
            votes.append((a, b, receipt.verdict))
    return votes


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
