"""Two-step HEF: how often the emotion that the language model settles on is the true one.

For comparison there are its two parts: the SEM alone (its first label) and the language model alone
(the same question without candidates). Decoding is greedy, so that no seed matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.contenders.strategies import THINKING, after_thinking
from empo_demo.empathy import hef
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.engine.protocol import Engine, Request
from empo_demo.metrics.statistics import bootstrap_interval
from empo_demo.progress import progress
from recipes.common import reply_texts
from recipes.studies.hef.effects import mean
from recipes.studies.hef.runner import Case

UNFIT = 0.5
"""If less than this share of first steps is readable, the model is too small for the question."""


def two_step(
    engine: Engine, contender: Contender, cases: Sequence[Case], roster: Roster, batch: int = 16
) -> dict[str, Any]:
    """Accuracies of both together, of the SEM alone and of the model alone, with intervals.

    `readable` is the share of first steps in the required form. Below `UNFIT` the effect is not
    `measurable` with this model. "Together" means as in the arena: after an unreadable first step
    the SEM's reading is used.
    """
    asked = replace(contender, strategy="hef-two-step")
    together: list[float] = []
    alone: list[float] = []
    readable = 0
    for start in progress(range(0, len(cases), batch), "two-step"):
        part = cases[start : start + batch]
        for case, thought in zip(part, _think(engine, asked, part, roster, True), strict=True):
            settled = after_thinking(
                asked, case.item.context, case.readings["sem"], roster, thought
            )
            readable += settled.source == "llm"
            together.append(float(settled.emotion == case.emotion))
        for case, thought in zip(part, _think(engine, asked, part, roster, False), strict=True):
            parsed = hef.parse_thought(thought, case.item.context.turns[-1].content)
            alone.append(float(parsed is not None and parsed.emotion == case.emotion))
    sem = [float(_first(case) == case.emotion) for case in cases]
    share = readable / len(cases)
    return {
        "n": len(cases),
        "readable": share,
        "measurable": share >= UNFIT,
        "together": _figure(together),
        "sem_alone": _figure(sem),
        "model_alone": _figure(alone),
    }


def _think(
    engine: Engine, contender: Contender, cases: Sequence[Case], roster: Roster, guided: bool
) -> list[str]:
    requests = []
    for case in cases:
        reading = case.readings["sem"]
        assert reading is not None
        message = (
            hef.think_message(case.item.context, reading, roster.hef_top_k)
            if guided
            else hef.think_about(case.item.context, (), EMOTIONS)
        )
        key = case.item.conv_id
        requests.append(Request(key, contender.id, (message,), THINKING, round=key))
    return reply_texts(engine, requests)


def _first(case: Case) -> str:
    reading = case.readings["sem"]
    assert reading is not None
    return reading.emotions[0][0]


def _figure(hits: Sequence[float]) -> dict[str, Any]:
    return {"accuracy": mean(hits), "interval": bootstrap_interval(hits)}
