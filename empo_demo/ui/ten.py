"""Judge ten: ten of the example situations in a row, one of them a check of attention.

The browser remembers which situations they are and which rounds were opened on them. Which one is
the check is drawn here as each round is opened, and nobody can tell it before the vote.
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from empo_demo.board.habits import Answer
from empo_demo.ui.examples import Example, examples

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
        if len(places) != TEN or any(type(one) is not int or one not in known for one in places):
            return None
        if len(rounds) > TEN or len(set(places)) != TEN:
            return None
        if not all(isinstance(one, str) and _ROUND.match(one) for one in rounds):
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
    found = []
    for view in views:
        receipt = view.receipt
        if receipt is not None and not receipt.reveal.attention_check:
            a = Answer(receipt.reveal.a.contender, view.replies["a"].text)
            b = Answer(receipt.reveal.b.contender, view.replies["b"].text)
            found.append((a, b, receipt.verdict))
    return found
