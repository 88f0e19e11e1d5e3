"""Contenders of every strategy in one batch: each answers as if it were alone."""

from __future__ import annotations

import pytest

from empo_demo.arena.comparison import Comparison, explore
from empo_demo.contenders import strategies
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.ui.shared_link import decode_link, encode_link

GREEDY = Decoding(temperature=0, top_p=1, repetition_penalty=1.0, max_new_tokens=20)
SAMPLED = Decoding(temperature=0.9, top_p=0.9, repetition_penalty=1.1, max_new_tokens=20)
DIALOGUE = Dialogue().plus("user", "I failed my exam.")
READING = Reading(
    (("ashamed", 0.69), *((e, 0.01) for e in EMOTIONS if e != "ashamed")),
    (Cause(2, 8, "failed", 1.0),),
    "s@1",
    1.0,
)
ROSTER = Roster(
    "test",
    (
        Contender("base", "m"),
        Contender("aligned", "m", "a"),
        Contender("base+HEF", "m", strategy="hef"),
        Contender("aligned+HEF2", "m", "a", strategy="hef-two-step"),
    ),
    tiny=True,
)
WEIGHTS = {"base+HEF": "base", "aligned+HEF2": "aligned"}


def request(engine: LocalEngine, contender: Contender) -> Request:
    """What the contender answers to, after its first step where it has one."""
    weights = WEIGHTS.get(contender.id, contender.id)
    prepared = strategies.prepare(contender, DIALOGUE, READING, ROSTER)
    if prepared.think is not None:
        asked = Request(contender.id, weights, tuple(prepared.think), strategies.THINKING)
        (thought,) = [e.text for e in engine.stream([asked]) if isinstance(e, Finished)]
        prepared = strategies.after_thinking(contender, DIALOGUE, READING, ROSTER, thought)
    return Request(contender.id, weights, prepared.messages, GREEDY)


def replies(engine: LocalEngine, *requests: Request) -> dict[str, tuple[str, int]]:
    events = list(engine.stream(requests))
    return {e.side: (e.text, e.tokens) for e in events if isinstance(e, Finished)}


def test_one_batch_serves_every_strategy_as_each_alone(
    exact_engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tokenizer of the tests takes a token for a letter or two.
    for limit in ("context", "trained"):
        monkeypatch.setattr(exact_engine.model_of("base"), limit, 4096)
    requests = [request(exact_engine, contender) for contender in ROSTER.contenders]
    lengths = {sum(len(m["content"]) for m in r.messages) for r in requests}
    assert len(lengths) > 1, "guided prompts are longer: rows of different lengths"
    together = replies(exact_engine, *requests)
    alone = [replies(exact_engine, one) for one in requests]
    assert together == {side: reply for one in alone for side, reply in one.items()}
    assert len({text for text, _ in together.values()}) >= 3


def compared(engine: LocalEngine, comparison: Comparison) -> dict[str, str]:
    *_, last = explore(engine, ROSTER, comparison)
    return {side: end.text for side, end in last.ends.items() if isinstance(end, Finished)}


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_the_dial_changes_the_reply_and_the_seed_does_not(
    exact_engine: LocalEngine, decoding: Decoding
) -> None:
    def at(dial: float) -> dict[str, str]:
        return compared(
            exact_engine, Comparison(DIALOGUE, "base", "aligned", 7, 1.0, dial, decoding)
        )

    off, half, full, most = at(0.0), at(0.5), at(1.0), at(1.5)
    assert off["a"] == off["b"], "without its adapter the aligned one is the base, draw for draw"
    assert len({off["b"], half["b"], full["b"], most["b"]}) == 4
    assert at(1.5) == most


def test_a_link_brings_back_the_very_replies(exact_engine: LocalEngine) -> None:
    first = Comparison(DIALOGUE, "aligned", "base", 11, 1.25, 0.0, SAMPLED)
    again = decode_link(encode_link(first), ROSTER)
    assert again is not None
    assert compared(exact_engine, again) == compared(exact_engine, first)
