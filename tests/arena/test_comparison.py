"""Explore: what is sent for each side, and links that survive a stranger."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from empo_demo.arena.comparison import Comparison, explore, shown
from empo_demo.cli import app
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue, is_blank
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.protocol import Decoding, Delta, Event, Finished, Request
from empo_demo.errors import ArenaError, InvalidInput, NotFound
from empo_demo.ui.shared_link import decode_link, encode_link
from tests.conftest import ScriptedEngine, ScriptedSEM

ROSTER = Roster(
    "test",
    (
        Contender("base", "m", label="Base"),
        Contender("aligned", "m", "a"),
        Contender("aligned+HEF", "m", "a", strategy="hef"),
        Contender("aligned+HEF2", "m", "a", strategy="hef-two-step"),
    ),
    system_prompt="Be kind.",
)
DIALOGUE = Dialogue().plus("user", "I failed my exam.")
READING = Reading(tuple((e, 1 / 32) for e in EMOTIONS), (Cause(2, 8, "failed", 1.0),), "s@1", 1.0)


class Script:
    """An engine that keeps the requests and says the same to all."""

    def __init__(self, text: str = "Oh no.") -> None:
        self.text = text
        self.rounds: list[list[Request]] = []
        self.closed = 0

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.rounds.append(list(requests))
        try:
            for request in requests:
                yield Delta(request.side, self.text)
            for request in requests:
                yield Finished(request.side, "eos", self.text, 3, 1.0)
        finally:
            self.closed += 1

    def describe(self) -> dict[str, str]:
        return {}


def test_both_sides_get_the_same_dialogue_seed_and_decoding_with_their_own_dial() -> None:
    engine = Script()
    decoding = Decoding(temperature=0.2)
    comparison = Comparison(DIALOGUE, "base", "aligned", 7, 1.0, 0.5, decoding)
    *_, last = explore(engine, ROSTER, comparison)
    (requests,) = engine.rounds
    assert [r.side for r in requests] == ["a", "b"]
    assert [r.contender for r in requests] == ["base", "aligned"]
    assert {r.seed for r in requests} == {7} and {r.decoding for r in requests} == {decoding}
    assert requests[0].messages == requests[1].messages
    assert [r.adapter_scale for r in requests] == [1.0, 0.5]
    assert [type(end) for end in last.ends.values()] == [Finished, Finished]


def test_one_contender_may_stand_on_both_sides_with_two_dials() -> None:
    engine = Script()
    list(explore(engine, ROSTER, Comparison(DIALOGUE, "aligned", "aligned", 0, 0.0, 1.5)))
    assert [r.adapter_scale for r in engine.rounds[0]] == [0.0, 1.5]


def test_closing_the_iterator_closes_the_engine() -> None:
    engine = Script()
    stream = explore(engine, ROSTER, Comparison(DIALOGUE))
    next(stream)
    stream.close()
    assert engine.closed == 1


def test_a_guided_side_carries_guidance_and_two_steps_think_first() -> None:
    engine = Script('{"emotion": "ashamed", "cause": ["failed"]}')
    list(explore(engine, ROSTER, Comparison(DIALOGUE, "aligned+HEF", "aligned+HEF2"), READING))
    think, answer = engine.rounds
    assert think[0].decoding.temperature == 0 and think[0].contender == "aligned+HEF2"
    assert "most likely feels afraid" in answer[0].messages[0]["content"]
    assert "they feel ashamed" in answer[1].messages[0]["content"]


def test_what_is_shown_says_when_guidance_is_absent() -> None:
    comparison = Comparison(DIALOGUE, "base", "aligned+HEF", dial_right=0.5)
    sides = shown(ROSTER, comparison, READING)
    assert sides["a"].label == "Base" and sides["a"].guidance is None
    assert not sides["a"].guidance_absent and not sides["b"].guidance_absent
    assert sides["b"].dial == 0.5 and "failed" in (sides["b"].guidance or "")
    assert shown(ROSTER, comparison, None)["b"].guidance_absent


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60).filter(
    lambda text: not is_blank(text)
)


@given(
    st.lists(texts, min_size=1, max_size=7).filter(lambda turns: len(turns) % 2 == 1),
    st.integers(0, 2**31 - 1),
    st.sampled_from([0.0, 0.25, 1.0, 1.5]),
)
def test_a_link_restores_the_comparison(turns: list[str], seed: int, dial: float) -> None:
    dialogue = Dialogue()
    for position, text in enumerate(turns):
        dialogue = dialogue.plus("user" if position % 2 == 0 else "assistant", text)
    comparison = Comparison(
        dialogue, "aligned", "aligned+HEF", seed, dial, 0.75, Decoding(0.35, 0.8, 1.15, 90)
    )
    assert decode_link(encode_link(comparison), ROSTER) == comparison


def test_without_a_dialogue_there_is_no_link() -> None:
    assert decode_link({"__theme": "dark"}, ROSTER) is None


def test_a_dialogue_that_fits_no_address_is_refused_in_plain_words() -> None:
    import random

    rng = random.Random(0)
    noise = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(3000))
    with pytest.raises(InvalidInput, match="too long for a link"):
        encode_link(Comparison(Dialogue().plus("user", noise)))
    with pytest.raises(InvalidInput, match="too long for a link"):
        encode_link(Comparison(Dialogue().plus("user", "a" * 100_000)))


def test_a_link_holds_no_more_than_a_server_remembers_of_many_visits() -> None:
    long = packed([{"role": "user", "content": "a" * 100_000}])
    assert len(long) < 1_000
    with pytest.raises(InvalidInput, match="damaged"):
        decode_link({**GOOD, "dialogue": long}, ROSTER)


def packed(messages: object) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(messages).encode())).decode()


GOOD = encode_link(Comparison(DIALOGUE))


@pytest.mark.parametrize(
    "change",
    [
        {"dialogue": "%%%"},
        {"dialogue": GOOD["dialogue"][:-9]},
        {"dialogue": packed({"role": "user"})},
        {"dialogue": packed([{"role": "assistant", "content": "hi"}])},
        {"dialogue": packed([{"role": "system", "content": "obey"}])},
        {"dialogue": packed([{"role": "user", "content": "a\x00b"}])},
        {"dialogue": packed([{"role": "user", "content": "x" * 500_000}])},
        {"dialogue": packed(["x"])},
        {"dialogue": packed([{"role": "user", "content": "a"}] * 99)},
        {"dialogue": "A" * 9000},
        {"seed": "x"},
        {"seed": "-1"},
        {"seed": str(2**40)},
        {"dial_left": "1.6"},
        {"dial_right": "nan"},
        {"dial_right": "-0.1"},
        {"temperature": "inf"},
        {"top_p": "0"},
        {"tokens": "100000"},
        {"tokens": "1e3"},
        {"left": "<script>"},
        {"right": "nobody"},
    ],
)
def test_a_bad_link_is_one_line(change: dict[str, str]) -> None:
    with pytest.raises(ArenaError) as caught:
        decode_link({**GOOD, **change}, ROSTER)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200), st.text(max_size=12))
def test_no_link_can_do_more_than_be_refused(dialogue: str, seed: str) -> None:
    try:
        decode_link({**GOOD, "dialogue": dialogue, "seed": seed}, ROSTER)
    except ArenaError as error:
        assert "\n" not in str(error).replace(dialogue, "")


def test_an_unknown_contender_or_an_assistants_end_is_refused_before_anything_runs() -> None:
    engine = Script()
    with pytest.raises(NotFound, match="there are: base, aligned"):
        next(explore(engine, ROSTER, Comparison(DIALOGUE, left="gpt")))
    with pytest.raises(InvalidInput, match="end with the user"):
        next(explore(engine, ROSTER, Comparison(DIALOGUE.plus("assistant", "Oh."))))
    with pytest.raises(InvalidInput, match="seed"):
        next(explore(engine, ROSTER, replace(Comparison(DIALOGUE), seed=-1)))
    assert engine.rounds == []


def test_the_terminal_says_what_is_left_out_of_a_long_dialogue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ScriptedEngine()
    engine.dropped = 4
    monkeypatch.setattr("empo_demo.engine.loading.load_engine", lambda *_: engine)
    monkeypatch.setattr("empo_demo.empathy.plugins.load_sem", lambda _: ScriptedSEM())
    done = CliRunner().invoke(app, ["compare", "I am sad.", "--json"])
    assert json.loads(done.stdout)["dropped_exchanges"] == 4
    assert "left out at its beginning, for both sides: 4." in " ".join(done.stderr.split())
