"""What people and models wrote is text, wherever it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import GROUPS
from empo_demo.empathy.sem import Cause
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import ASSETS
from empo_demo.ui import highlights, plots
from empo_demo.ui.examples import load_examples


@given(st.text(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_marking_never_lets_markup_through(text: str, start: int, end: int) -> None:
    cause = Cause(min(start, end), max(start, end), text[start:end], 0.9)
    markup = highlights.marked(text, [cause])
    stripped = markup.replace("<br>", "")
    for tag in ('<mark class="cause w3" title="cause word, weight 0.90">', "</mark>"):
        stripped = stripped.replace(tag, "")
    assert "<" not in stripped and ">" not in stripped


def test_the_mark_is_stronger_the_higher_the_weight() -> None:
    found = [highlights.marked("rain", [Cause(0, 4, "rain", w)]) for w in (0.1, 0.4, 0.9)]
    assert ["w1" in found[0], "w2" in found[1], "w3" in found[2]] == [True] * 3


def test_panes_and_messages_escape() -> None:
    for markup in (highlights.pane("a", "<b>x"), highlights.message("<b>x", error=True)):
        assert "<b>x" not in markup and "&lt;b&gt;x" in markup


def test_every_group_has_a_sign_a_colour_in_both_themes_and_enough_contrast() -> None:
    style = (ASSETS / "page" / "style.css").read_text(encoding="utf8")
    light, dark = style.split(".dark {", 1)
    for group in GROUPS:
        assert highlights.SIGNS[group]
        assert _contrast(_colour(light, group), "#fffdfa") >= 4.5, group
        assert _contrast(_colour(dark, group), "#25221f") >= 4.5, group


def test_the_plots_follow_the_dialogue_and_both_sides() -> None:
    dialogue = Dialogue().plus("user", "What a wonderful, happy day!")
    data = plots.series(dialogue, {"a": "How lovely, lovely!", "b": ""}, load_lexicon())
    assert data.turns[0][1] > 0.5 and set(data.sides) == {"a"}
    assert data.diversity["a"][0] == pytest.approx(1.0)
    assert "<svg" in plots.svg(data) and plots.svg(data).count("<rect") == 1
    drawn = plots.figure(data).to_json()
    assert len(drawn) < 12_000, "a figure carries no template"


def test_there_are_at_least_twelve_examples_over_different_emotions() -> None:
    examples = load_examples()
    assert len(examples) >= 12 and len({e.emotion for e in examples}) >= 12
    assert any(e.before.turns for e in examples)


def _colour(style: str, group: str) -> str:
    return style.split(f"--{group}: ")[1][:7]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
