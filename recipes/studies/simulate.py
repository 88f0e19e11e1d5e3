"""Simulated voters with a given taste, who vote through the real arena, and their effect.

They open rounds, read both streams and vote like any visitor; nothing bypasses the arena. They show
that the loop learns what voters prefer, and learns nothing when they have no preference.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.engine.loading import load_engine
from empo_demo.engine.protocol import Engine, Finished, Request
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.progress import steps
from empo_demo.training.corpus import read_conversations
from empo_demo.training.loop import open_roster, retrain, trainable
from empo_demo.votes.store import Store
from recipes.common import reply_texts

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.settings import Settings
    from empo_demo.training.loop import Course

Taste = Callable[[str, str, random.Random], str]
VOTES_PER_VOTER = 10
"""The rounds of one simulated voter; the number is below the arena's rate limit."""


def asks(reply: str) -> bool:
    """The attribute of the taste "question": the reply has a question mark."""
    return "?" in reply


def _question(a: str, b: str, rng: random.Random) -> str:
    if asks(a) == asks(b):
        return "tie"
    return "a" if asks(a) else "b"


def _coin(a: str, b: str, rng: random.Random) -> str:
    return rng.choice(("a", "b"))


TASTES: dict[str, Taste] = {"question": _question, "random": _coin}


@dataclass(frozen=True, slots=True)
class Shift:
    """The paired difference between a child and its parent in their shares of an attribute."""

    parent: float
    child: float
    difference: float
    interval: tuple[float, float]
    p: float
    n: int

    def within(self, bound: float) -> bool:
        """Whether two one-sided tests (5 %) show that the difference is within ± `bound`."""
        error = (self.interval[1] - self.interval[0]) / 2 / 1.959963984540054
        return abs(self.difference) + 1.6448536269514722 * error < bound


@dataclass(frozen=True, slots=True)
class Voters:
    """A taste of `TASTES`, the votes per round, and the folder of what the voters say."""

    taste: str
    votes: int
    data: Path


def run_loop(
    settings: Settings, course: Course, voters: Voters, rounds: int = 1
) -> list[Contender]:
    """Vote and retrain `rounds` times, each time from the last child; return the children."""
    children: list[Contender] = []
    for number in range(rounds):
        roster = open_roster(settings, course)
        trainable(roster, course.parent)
        vote(settings, course, voters, roster, seed=course.seed * 1000 + number)
        children.append(retrain(course, roster))
        course = replace(course, parent=children[-1].id)
    return children


def vote(
    settings: Settings, course: Course, voters: Voters, roster: Roster, *, seed: int
) -> dict[str, int]:
    """Let the voters cast their votes through the arena; return the number of each verdict."""
    texts = first_turns(voters.data, "train")
    own = settings.model_copy(update={"database": course.database, "seed": seed})
    store = Store.open(course.database)
    engine = load_engine(own, roster)
    try:
        arena = Arena(own, roster, store, engine=engine)
        title = f"votes ({voters.taste})"
        with steps(voters.votes) as begin:
            begin(title, 0)
            counts = cast_votes(
                arena,
                texts,
                taste=voters.taste,
                votes=voters.votes,
                seed=seed,
                at_once=own.max_concurrent_rounds or 4,
                progress=partial(begin, title),
            )
    finally:
        getattr(engine, "close", lambda: None)()
        store.close()
    print(f"Verdicts: {dict(counts)}", file=sys.stderr)
    return dict(counts)


def first_turns(data: Path, split: Literal["train", "valid"]) -> list[str]:
    """The first turns of people in the dialogues of a split. The splits never mix."""
    texts = [conversation.turns[0]["content"] for conversation in read_conversations(data, split)]
    return [text for text in texts if 3 <= len(text.split()) <= 20]


def cast_votes(
    arena: Arena,
    texts: Sequence[str],
    *,
    taste: str,
    votes: int,
    seed: int = 0,
    at_once: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Counter[str]:
    """Cast `votes` votes on first turns drawn from `texts`; count the verdicts (and "void").

    `at_once` voters are served together. Raises `InvalidInput` for an unknown taste, and if most
    rounds cannot be voted on.
    """
    if taste not in TASTES:
        raise InvalidInput(f"There is no taste {taste!r}; there are: {', '.join(TASTES)}.")
    visits = -(-votes // VOTES_PER_VOTER)
    counts: Counter[str] = Counter()

    def visit(number: int) -> Counter[str]:
        wanted = min(VOTES_PER_VOTER, votes - number * VOTES_PER_VOTER)
        return _visit(arena, texts, TASTES[taste], wanted, random.Random(f"{seed} {number}"))

    with ThreadPoolExecutor(at_once) as pool:
        for done in pool.map(visit, range(visits)):
            counts += done
            if progress is not None:
                progress(counts.total() - counts["void"])
    return counts


def _visit(
    arena: Arena, texts: Sequence[str], taste: Taste, wanted: int, rng: random.Random
) -> Counter[str]:
    voter, consent = arena.new_voter(), arena.consent_text().version
    counts: Counter[str] = Counter()
    while counts.total() - counts["void"] < wanted:
        if counts["void"] > 5 * wanted:
            raise InvalidInput("Most rounds could not be voted on; look at the engine's log.")
        opened = arena.open_round(voter, Dialogue(), rng.choice(texts), consent=consent)
        *_, last = arena.stream(voter, opened.round_id)
        ended = {side: end.text for side, end in last.ends.items() if isinstance(end, Finished)}
        try:
            verdict = taste(ended["a"], ended["b"], rng)
            arena.vote(voter, opened.round_id, verdict)
        except (ArenaError, KeyError):
            verdict = "void"
        counts[verdict] += 1
    return counts


def replies(
    engine: Engine,
    roster: Roster,
    contenders: Sequence[str],
    asked: Sequence[str],
    *,
    seed: int = 0,
    batch: int = 16,
) -> dict[str, list[str]]:
    """One reply per contender and text, with the same seed for all contenders of a text.

    Raises `EngineError` if one failed, because a reply that is missing would count as one without
    the attribute.
    """
    prompts = [
        tuple(Dialogue().plus("user", text).messages(roster.system_prompt)) for text in asked
    ]
    replies: dict[str, list[str]] = {name: [] for name in contenders}
    for low in range(0, len(asked), batch):
        requests = [
            Request(
                side=f"{name} {place}",
                contender=name,
                messages=prompts[place],
                decoding=roster.decoding,
                seed=seed + place,
                round=str(place),
            )
            for place in range(low, min(low + batch, len(asked)))
            for name in contenders
        ]
        for request, text in zip(requests, reply_texts(engine, requests), strict=True):
            replies[request.contender].append(text)
    return replies


def shift(parent: Sequence[bool], child: Sequence[bool]) -> Shift:
    """Paired difference of two shares: Wald interval, McNemar's exact p (two-sided)."""
    from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

    n = len(parent)
    gained = sum(c and not p for p, c in zip(parent, child, strict=True))
    lost = sum(p and not c for p, c in zip(parent, child, strict=True))
    difference = (gained - lost) / n
    error = math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 1.0)) / n
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Shift(
        sum(parent) / n,
        sum(child) / n,
        difference,
        (difference - 1.959963984540054 * error, difference + 1.959963984540054 * error),
        p,
        n,
    )
