"""What a visitor sees first: both models on our own situations, to choose from by eye.

`python -m recipes.effect first-look` plays a round between base and aligned on each situation and
each seed, and writes a table. The recorded round is then made again with the text and the seed that
were chosen: `python -m empo_demo page rehearsal --text TEXT --seed SEED` gives the same replies.
Chips and Explore's opening are the first of `assets/examples.json`. No text is used twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.empathy.plugins import load_sem
from empo_demo.progress import progress
from empo_demo.settings import load_settings
from empo_demo.ui.examples import examples

SITUATIONS = (
    "I got the job! They called while I was on the bus and I screamed.",
    "My little brother graduated today, the first of us to finish school.",
    "After four years apart, my daughter phoned me on my birthday.",
    "I ran ten kilometres without stopping, and a year ago I could not climb the stairs.",
    "We paid the last instalment of the house this morning. It is really ours.",
    "The vet says that our cat will be fine. I had already said goodbye to her.",
    "I sang alone on a stage for the first time and nobody laughed.",
    "My sourdough finally rose, and I am absurdly happy about it.",
    "My best friend is moving to another country and told me by text message.",
    "I dropped the cake on the way to my mother's seventieth birthday.",
    "They gave the promotion to the man whom I had trained.",
    "I found out that my brother has been lying to me about the money for years.",
    "I forgot my lines in the school play, and my son was in the first row.",
    "My bike was stolen from the yard, the one that my grandfather built.",
    "There was a noise in the cellar last night and I lay awake until five.",
    "Nobody came to my housewarming. I ate the chili alone for three days.",
    "I was rude to a waiter today and it has followed me home.",
    "My landlord wants us out by Christmas and says it is nothing personal.",
    "The exam is on Monday and I have not understood the first chapter.",
    "I found the scarf that I had been looking for since she died.",
    "My dad said he was proud of me. He has never said that before.",
    "I quit smoking a hundred days ago today.",
    "My train was cancelled, so I missed my own farewell dinner.",
    "A stranger paid for my groceries when my card was refused.",
)
"""Of our own, none of a data set's and none among the examples."""
ASKED = ("base", "aligned")


@dataclass(frozen=True, slots=True)
class Look:
    """A round on one situation with one seed: the replies by contender."""

    text: str
    seed: int
    replies: dict[str, str]


def candidates() -> list[str]:
    """The situations, and the examples that begin a dialogue."""
    return [*SITUATIONS, *(example.text for example in examples() if not example.before.turns)]


def look(texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Look]:
    """Play every round. Its seed draws sides and sampling, as in `page rehearsal`."""
    from empo_demo.arena.arena import Arena
    from empo_demo.arena.guards import HelpFirst
    from empo_demo.engine.loading import load_engine
    from empo_demo.ui.arena_tab.rehearsal import record
    from empo_demo.votes.store import Store

    settings = load_settings()
    roster = load_roster(settings).only(*ASKED)
    engine, sem = load_engine(settings, roster), load_sem(settings)
    for text in progress(texts, "situations"):
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/votes.sqlite3"
                own = settings.model_copy(update={"database": url, "seed": seed})
                store = Store.of(own)
                try:
                    found = record(Arena(own, roster, store, engine=engine, sem=sem), text)
                except HelpFirst:
                    yield Look(text, seed, dict.fromkeys(ASKED, "(the way to help, a false alarm)"))
                    break
                finally:
                    store.close()
            yield Look(text, seed, _by_contender(found))


def _by_contender(found: dict[str, Any]) -> dict[str, str]:
    return {found["contenders"][s]["contender"]: found["replies"][s] for s in ("a", "b")}


def table(looks: Sequence[Look]) -> str:
    """All rounds as Markdown."""
    lines = [f"| situation | seed | {' | '.join(ASKED)} |", "|---|---|---|---|"]
    for one in looks:
        replies = " | ".join(_cell(one.replies[name]) for name in ASKED)
        lines.append(f"| {_cell(one.text)} | {one.seed} | {replies} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
