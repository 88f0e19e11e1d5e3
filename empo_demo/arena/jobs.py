"""The work of a round's two sides, made from a stored round; and the frame of an answered one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from empo_demo.arena import checks
from empo_demo.arena.frames import Frame
from empo_demo.arena.rounds import dialogue_of, reading_of
from empo_demo.contenders import strategies
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Failed, Finished, FinishReason, Request
from empo_demo.errors import SettingsError
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


def _job(
    reply: Reply, side: Side, dialogue: Dialogue, reading: Reading | None, roster: Roster
) -> Job:
    if reply.strategy == checks.STRATEGY:
        return Job(side, known_bad=checks.text_of(reply.revision))
    contender = roster[reply.contender]
    if contender.revision != reply.revision:
        # The vote would count for another model than the one that answers.
        raise SettingsError("The contender {name} is another model by now.", name=contender.id)
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
