"""The pair's replies to the cases, with the arena's engine and decoding; a killed run continues.

Base, fine-tuned and aligned answer without hints. Base and aligned also answer the first turns with
the SEM's hint, with the true emotion's (upper bound), and with a shuffled one (a control that must
not help). A revision names the bytes of a model, so replies of older adapters stay in the file and
are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Roster
from empo_demo.empathy.plugins import load_sem, read_all
from empo_demo.settings import load_settings
from recipes.effect.cases import Case
from recipes.studies.hef import runner as hef
from recipes.studies.hef.command import label_of

if TYPE_CHECKING:
    from empo_demo.engine.protocol import Engine

PLAIN = ("base", "sft", "aligned")
HINTED = ("base", "aligned")
HINTS: tuple[hef.Condition, ...] = ("sem", "true", "shuffled")
FILE = "answers.jsonl"
NO_SEM = ""


@dataclass(frozen=True)
class Replies:
    """All replies of one seed: by contender and condition, in the order of the cases."""

    found: dict[tuple[str, hef.Condition], list[hef.Answer]]

    def texts(self, contender: str, condition: hef.Condition = "none") -> list[str]:
        return [answer.reply for answer in self.found[contender, condition]]


def answer(
    cases: Sequence[Case],
    work: Path,
    *,
    contenders: Sequence[str] = PLAIN,
    hinted: Sequence[str] = HINTED,
    batch: int = 32,
    seed: int = 0,
) -> Replies:
    """Write what `work` does not hold yet, and give all replies to `cases`."""
    settings = load_settings()
    roster = load_roster(settings)
    work.mkdir(parents=True, exist_ok=True)
    file = work / FILE
    first = [case for case in cases if case.turn == 1] if hinted else []
    # A reply without a hint does not depend on the SEM, so it outlives a new one.
    plain = [hef.Case(case.item, {"none": None}) for case in cases]
    sem = load_sem(settings) if hinted else None
    label = NO_SEM if sem is None else label_of(sem)
    guided = [] if sem is None else _guided(first, partial(read_all, sem), seed)
    wanted = _wanted(roster, plain, guided, label, contenders, hinted, seed)
    done = hef.read_answers(file)
    if any(key not in done for keys in wanted.values() for key in keys):
        from empo_demo.engine.loading import load_engine

        names = [*dict.fromkeys((*contenders, *hinted))]
        engine: Engine = load_engine(settings, roster.only(*names))
        for name in contenders:
            runner = hef.Runner(engine, roster, NO_SEM, seed)
            hef.fill(runner, [roster[name]], plain, file, batch, ("none",))
        for name in hinted:
            runner = hef.Runner(engine, roster, label, seed)
            hef.fill(runner, [roster[name]], guided, file, batch, HINTS)
        done = hef.read_answers(file)
    return Replies({system: [done[key] for key in keys] for system, keys in wanted.items()})


def _guided(first: Sequence[Case], read: partial[list[hef.Reading]], seed: int) -> list[hef.Case]:
    readings = read([case.item.context.turns for case in first])
    return [
        hef.Case(case.item, hef.readings_of(case.item, reading, seed))
        for case, reading in zip(first, readings, strict=True)
    ]


def _wanted(
    roster: Roster,
    plain: Sequence[hef.Case],
    guided: Sequence[hef.Case],
    label: str,
    contenders: Sequence[str],
    hinted: Sequence[str],
    seed: int,
) -> dict[tuple[str, hef.Condition], list[hef.Key]]:
    """The keys of the answers of each system, in the order of its cases."""
    keys: dict[tuple[str, hef.Condition], list[hef.Key]] = {
        (name, "none"): [
            (roster[name].revision, NO_SEM, "none", case.item.conv_id, seed) for case in plain
        ]
        for name in contenders
    }
    for name in hinted:
        for condition in HINTS:
            keys[name, condition] = [
                (roster[name].revision, label, condition, case.item.conv_id, seed)
                for case in guided
            ]
    return keys
