"""The Explore tab's form: what a link fills in is what the form asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.arena.link import encode_link
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Decoding
from empo_demo.ui.explore_tab import _comparison, _link, _models, _restore, _strip

ROSTER = Roster("test", (Contender("base", "m"), Contender("aligned", "m", "adapter")))
ARENA: Any = SimpleNamespace(roster=ROSTER)
KNOBS = 11


def test_every_setting_of_a_link_comes_back_out_of_the_form() -> None:
    dialogue = Dialogue().plus("user", "Hello.").plus("assistant", "Yes?").plus("user", "My cat.")
    sent = Comparison(dialogue, "base", "aligned", 7, 0.5, 1.25, Decoding(0.35, 0.8, 1.3, 400))
    knobs, said = [object() for _ in range(KNOBS)], gr.HTML(render=False)
    filled = _restore(ARENA, encode_link(sent), knobs, said)
    assert set(filled) == {*knobs, said}
    assert _comparison(ARENA, [filled[knob] for knob in knobs]) == sent


def test_a_link_says_when_the_models_have_changed_since() -> None:
    dialogue = Dialogue().plus("user", "Hello.")
    sent = Comparison(dialogue, "base", "aligned")
    link = {**encode_link(sent), "models": _models(ARENA, sent)}
    knobs, said = [object() for _ in range(KNOBS)], gr.HTML(render=False)
    assert "have changed" not in _restore(ARENA, link, knobs, said)[said]
    newer = SimpleNamespace(
        roster=Roster(
            "test", (Contender("base", "m"), Contender("aligned", "m", "adapter", revision="2"))
        )
    )
    assert "have changed" in _restore(newer, link, knobs, said)[said]


def test_the_strip_shows_four_strengths_of_one_model_and_marks_what_is_new(arena: Arena) -> None:
    strip, said = gr.HTML(render=False), gr.HTML(render=False)
    usual = arena.roster.decoding
    values = [[], "My cat ran away.", "base", "aligned", 1, 1, 7, usual.temperature, usual.top_p,
              usual.repetition_penalty, 40]  # fmt: skip
    engine = arena.engine()
    engine.enqueue("I am so sad.", "<b>I am glad.")
    engine.enqueue("I am glad.", "I am delighted.")
    frames = list(_strip(arena, values, strip, said, None))
    markup = [frame[strip] for frame in frames if strip in frame][-1]
    assert markup.count("<article") == 4 and "1½" in markup and "<b>I" not in markup
    assert '<span class="only">delighted</span>' in markup
    asked = [(r.contender, r.adapter_scale, r.seed) for call in engine.requests for r in call]
    assert asked == [("aligned", scale, 7) for scale in (0.0, 0.5, 1.0, 1.5)]


def test_a_link_promises_the_same_words_only_where_the_engine_does() -> None:
    comparison = Comparison(Dialogue().plus("user", "Hello."), "base", "aligned", 7)
    for repeatable in (True, False):
        engine = SimpleNamespace(repeatable=repeatable)
        arena: Any = SimpleNamespace(roster=ROSTER, engine=lambda engine=engine: engine)
        assert ("may differ" in _link(arena, comparison)) is not repeatable
