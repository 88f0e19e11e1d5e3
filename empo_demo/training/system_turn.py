"""The system turn of training dialogues: the prompt of the serving, and HEF's hint for some.

An adapter answers best in the form that it learnt. So the trainings write the system turn as the
contenders' strategies do: one prompt for all, and for a share of the dialogues the compact hint of
the embedded SEM's own reading below it, right or wrong, as a visitor's round has it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import cast

from empo_demo.dialogue import Message, Role, Turn
from empo_demo.empathy import hef
from empo_demo.errors import InvalidInput
from empo_demo.progress import steps

AT_ONCE = 256
"""Dialogues that the SEM reads between two signs of progress."""


def with_system(turns: Sequence[Message], prompt: str, hint: str = "") -> list[Message]:
    """`turns` after a system turn of `prompt` and `hint`; a system turn of their own stays first.

    Without any text there is no system turn.
    """
    own = turns[0]["content"] if turns and turns[0]["role"] == "system" else ""
    text = "\n\n".join(part for part in (own or prompt, hint) if part)
    rest = list(turns[1:] if own else turns)
    return [{"role": "system", "content": text}, *rest] if text else rest


def drawn(count: int, share: float, seed: int) -> list[bool]:
    """Which of `count` dialogues get a hint: each with the probability `share`, seeded."""
    if not 0 <= share <= 1:
        raise InvalidInput(f"--hints-share is {share:g}; it must be from 0 to 1.")
    rng = random.Random(f"hints {seed}")
    return [rng.random() < share for _ in range(count)]


def read_hints(prompts: Sequence[Sequence[Message]]) -> list[str]:
    """The compact hint of each prompt, by the embedded SEM. Empty where a turn is not legible."""
    from empo_demo.empathy.sem import EmbeddedSEM

    hints = [""] * len(prompts)
    legible = {i: turns for i, prompt in enumerate(prompts) if (turns := _turns(prompt))}
    if not legible:
        return hints
    sem = EmbeddedSEM()
    order = list(legible)
    with steps(len(order)) as begin:
        for start in range(0, len(order), AT_ONCE):
            begin("hints", start)
            part = order[start : start + AT_ONCE]
            readings = sem.read_many([legible[i] for i in part])
            for i, reading in zip(part, readings, strict=True):
                hints[i] = hef.guidance(reading, 0, tiny=True)
    return hints


def _turns(prompt: Iterable[Message]) -> list[Turn]:
    """The turns of a prompt without its system turn; none if one of them is invalid."""
    try:
        return [
            Turn(cast(Role, turn["role"]), turn["content"])
            for turn in prompt
            if turn["role"] != "system"
        ]
    except InvalidInput:
        return []
