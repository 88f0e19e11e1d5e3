"""Composes a new round: the SEM's reading, the drawn contenders, sides and seeds.

Nothing is stored here. The arena adds the voter and stores the round before it is shown.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from empo_demo import __version__
from empo_demo.arena import guards, jobs
from empo_demo.arena.rounds import Exposure, OpenedRound, reading_of
from empo_demo.contenders.roster import UNGUIDED
from empo_demo.dialogue import Dialogue
from empo_demo.votes.models import SIDES, Reply, Round, Side, now

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.empathy.reading import Reading
    from empo_demo.empathy.sem import SEM
    from empo_demo.settings import Exposure as ExposureSetting
    from empo_demo.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a round shall be an attention check, and the `emotion` that its text is known to
    carry."""

    wanted: bool
    emotion: str


@dataclass(frozen=True, slots=True)
class Draw:
    """The random choices of one round. `seed` reproduces all of them."""

    seed: int
    contenders: dict[Side, Contender]
    seeds: dict[Side, int]
    show: Exposure
    check_side: Side | None


def draw_round(
    roster: Roster,
    counts: Mapping[str, int],
    *,
    seed: int,
    exposure: ExposureSetting,
    check_rate: float = 0.0,
) -> Draw:
    """Draw a round. The same arguments give the same round."""
    rng = random.Random(seed)
    first, second = roster.draw(rng, counts)
    seeds: dict[Side, int] = {"a": rng.getrandbits(31), "b": rng.getrandbits(31)}
    # Kept, so that a stored seed still gives the same round: earlier versions drew a side here.
    rng.random()
    chips, plots = rng.random() < 0.5, rng.random() < 0.5
    if exposure != "randomised":
        chips = plots = exposure == "all"
    check: Side | None = None
    if rng.random() < check_rate:
        check = "a" if rng.random() < 0.5 else "b"
    return Draw(seed, {"a": first, "b": second}, seeds, Exposure(chips, plots), check)


def compose(
    dialogue: Dialogue,
    flags: guards.Flags,
    settings: Settings,
    roster: Roster,
    sem: SEM | None,
    counts: Mapping[str, int],
    seed: int,
    check: Check | None = None,
) -> tuple[Round, OpenedRound]:
    """The row of a pending round, without its voter, and what may be shown of it.

    `counts` are the votes so far by contender id. All draws follow from `seed`. `check` says
    whether it is an attention check; by default that is drawn by the setting.
    """
    reading, sem_error = read(sem, dialogue)
    usable = None if reading is None or reading.abstains else reading
    rate = settings.check_rate if check is None else float(check.wanted)
    draw = draw_round(roster, counts, seed=seed, exposure=settings.exposure, check_rate=rate)
    # A known emotion makes a fair check; the SEM's first guess is wrong about every second time.
    emotion = check.emotion if check else usable.emotions[0][0] if usable else ""
    check_side = draw.check_side if emotion else None
    # A text in crisis opens no round (`check_crisis`), and patterns alone do not overrule that.
    stored = Round(
        id=secrets.token_hex(16),
        state="pending",
        created_at=now(),
        dialogue=dialogue.messages(),
        seed=seed,
        decoding=asdict(roster.decoding),
        system_prompt=roster.system_prompt,
        roster=roster.name,
        app_version=__version__,
        reading=reading.stored() if reading else None,
        sem_error=sem_error,
        exposure=settings.exposure,
        show_chips=draw.show.chips,
        show_plots=draw.show.plots,
        crisis=False,
        personal=flags.personal,
        identity=flags.identity,
        english=flags.english,
        check_side=check_side,
        replies=_replies(draw, check_side, emotion, reading=usable is not None),
        notices=list(flags.notices),
    )
    shown = reading if draw.show.chips else None
    return stored, OpenedRound(
        stored.id, dialogue, shown, guards.notices_of(flags.notices), draw.show
    )


def is_drawn_from(round_: Round, roster: Roster) -> bool:
    """Whether the roster still has the contenders of a round, with the same weights."""
    revisions = {one.id: one.revision for one in roster.contenders}
    return all(
        revisions.get(reply.contender.removesuffix(UNGUIDED)) == reply.revision
        for reply in round_.replies
        if reply.strategy != jobs.CHECK
    )


def draw_again(round_: Round, roster: Roster, counts: Mapping[str, int]) -> None:
    """Give a round of which nothing was said yet contenders of this roster, by its own seed.

    What else was drawn stays: what is shown of the reading, the sides' seeds, and the side of an
    attention check. A vote would otherwise count for another model than the one that answers.
    """
    draw = draw_round(roster, counts, seed=round_.seed, exposure="all")
    reading = reading_of(round_)
    guided = reading is not None and not reading.abstains
    for side, contender in draw.contenders.items():
        reply = round_.reply(side)
        if reply.strategy != jobs.CHECK:
            reply.contender = contender.id_in_round(reading=guided)
            reply.revision, reply.strategy = contender.revision, contender.strategy
    round_.roster, round_.system_prompt = roster.name, roster.system_prompt
    round_.decoding = asdict(roster.decoding)


def read(sem: SEM | None, dialogue: Dialogue) -> tuple[Reading | None, str | None]:
    """The SEM's reading, or the reason why there is none. Without it the round goes on unguided."""
    if sem is None:
        return None, "The SEM was not available."
    try:
        return sem.read(dialogue.turns), None
    except Exception as error:
        log.exception("The SEM failed")
        return None, f"{type(error).__name__}: {error}"[:500]


def _replies(draw: Draw, check_side: Side | None, emotion: str, *, reading: bool) -> list[Reply]:
    """The two replies of a round, without text yet; that of `check_side` is known to be bad for
    the `emotion`. Without a `reading` that names an emotion none is guided.
    """
    replies = []
    for side in SIDES:
        contender = draw.contenders[side]
        reply = Reply(
            side=side,
            contender=contender.id_in_round(reading=reading),
            revision=contender.revision,
            strategy=contender.strategy,
            seed=draw.seeds[side],
        )
        if side == check_side:
            reply.contender = reply.strategy = jobs.CHECK
            reply.revision = jobs.draw_bad_reply(emotion, draw.seed)
        replies.append(reply)
    return replies
