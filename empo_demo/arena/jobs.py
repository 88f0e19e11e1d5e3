"""The work of a round's two sides, made from a stored round; and the frame of an answered one.

The side of an attention check says a reply of our own that is plainly wrong for the emotion. It
fits the *opposite* of the emotion that the SEM reads, like a reply from a dialogue with the
opposite emotion. Exports never contain such rounds as preferences.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from empo_demo.arena.frames import Frame
from empo_demo.arena.rounds import dialogue_of, reading_of
from empo_demo.contenders import strategies
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import GROUP_OF
from empo_demo.engine.protocol import Engine, Failed, Finished, FinishReason, Request
from empo_demo.votes.models import SIDES, Reply, Round, Side

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster
    from empo_demo.contenders.strategies import Prepared
    from empo_demo.empathy.reading import Reading


@dataclass
class Job:
    """One side's request; for a known bad side only its text."""

    side: Side
    request: Request | None = None
    prepared: Prepared | None = None
    after_thinking: Callable[[str], Prepared] | None = None
    known_bad: str | None = None


def jobs_of(round_: Round, roster: Roster) -> dict[Side, Job]:
    """The job of each side. Their prompts differ only by their strategies."""
    dialogue, reading = dialogue_of(round_), reading_of(round_)
    return {side: _job(round_.reply(side), side, dialogue, reading, roster) for side in SIDES}


def as_read(engine: Engine, jobs: Mapping[Side, Job], round_: Round) -> list[dict[str, Any]] | None:
    """The round's turns with what the models read of each; None if they read what was typed.

    A space breaks what would open or end a turn, by the tokenizers of both sides. Whoever trains on
    the round must read the same.
    """
    read = getattr(engine, "as_read", None)
    if read is None:
        return None
    texts = typed = [str(turn["content"]) for turn in round_.dialogue]
    for contender in {job.request.contender for job in jobs.values() if job.request}:
        texts = read(contender, texts)
    if texts == typed:
        return None
    return [
        dict(turn) if text == turn["content"] else {**turn, "read": text}
        for turn, text in zip(round_.dialogue, texts, strict=True)
    ]


def _job(
    reply: Reply, side: Side, dialogue: Dialogue, reading: Reading | None, roster: Roster
) -> Job:
    if reply.strategy == CHECK:
        return Job(side, known_bad=bad_reply(reply.revision))
    contender = roster[reply.contender]
    return Job(
        side,
        Request(side, contender.id, (), roster.decoding, reply.seed),
        strategies.prepare(contender, dialogue, reading, roster),
        partial(strategies.after_thinking, contender, dialogue, reading, roster),
    )


def replay(round_: Round) -> Generator[Frame, None, None]:
    """Yield the stored replies of an answered round as the one frame of a stream."""
    replies = {side: round_.reply(side) for side in SIDES}
    dropped = round_.dropped_exchanges or 0
    ends: dict[Side, Finished | Failed] = {
        side: Finished(
            side,
            cast(FinishReason, reply.reason or "eos"),
            reply.text or "",
            reply.tokens or 0,
            reply.milliseconds or 0.0,
            dropped,
        )
        for side, reply in replies.items()
    }
    yield Frame({side: reply.text or "" for side, reply in replies.items()}, ends, dropped)


CHECK = "check"
"""The strategy of a side that says a known bad reply."""

_GLAD = (
    "Congratulations! That is the best news I have heard all day. You must be over the moon!",
    "How wonderful! I am so happy for you. Are you going to celebrate with a big party?",
    "That sounds like so much fun! I wish I could have been there to enjoy it with you.",
    "What a lucky day! Everything worked out perfectly for you, and you earned every bit of it.",
)
_SAD = (
    "I am so sorry for your loss. It must hurt terribly to go through something like that.",
    "That is awful. I would be furious too if somebody had treated me in that way.",
    "Oh no, how frightening. I hope that you are safe now and that nobody was hurt.",
    "What a pity that it went so badly. Nobody should have to live through such a thing.",
)
_BAD_FOR = {True: _SAD, False: _GLAD}
_PLEASANT_GROUPS = frozenset({"joy", "trust", "anticipation", "surprise"})


def draw_bad_reply(emotion: str, seed: int) -> str:
    """The name of a reply that is known to be bad for `emotion`."""
    pleasant = GROUP_OF[emotion] in _PLEASANT_GROUPS
    number = random.Random(f"check {seed}").randrange(len(_BAD_FOR[pleasant]))
    return f"{'pleasant' if pleasant else 'unpleasant'}/{number}"


def bad_reply(name: str) -> str:
    """The known bad reply with a name that `draw_bad_reply` returned."""
    kind, _, number = name.partition("/")
    return _BAD_FOR[kind == "pleasant"][int(number)]
