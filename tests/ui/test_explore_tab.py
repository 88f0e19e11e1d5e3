"""The Explore tab's form: what a link fills in is what the form asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from empo_demo.arena.comparison import Comparison, encode_link
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Decoding
from empo_demo.ui.explore_tab import _comparison, _restore

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
