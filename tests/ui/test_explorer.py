"""Explore: what a link fills in is what the form asks for, and what it says of what comes out."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Decoding
from empo_demo.ui import shared_link
from empo_demo.ui.arena_tab import share_card
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.shared_link import encode_link
from empo_demo.ui.tabs import explore_tab
from empo_demo.ui.tabs.explorer import Explorer
from empo_demo.ui.texts import texts_of
from empo_demo.ui.visitors import Session
from empo_demo.votes.limits import RateLimit
from tests.ui.test_handlers import handlers_of

SAY = texts_of("en")
TEXT = "My cat ran away."


def explorer_of(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    found: list[Explorer] = []
    monkeypatch.setattr(explore_tab, "_wire", lambda explorer, *_: found.append(explorer))
    with gr.Blocks() as page, gr.Tabs() as tabs, gr.Tab() as tab:
        explore_tab.build(arena, gr.BrowserState({}), page, tabs, tab, Labels())
    return found[0]


@pytest.fixture
def explorer(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    return explorer_of(arena, monkeypatch)


def values_of(explorer: Explorer, comparison: Comparison) -> list[Any]:
    filled = explorer.form.filled(comparison)
    return [filled[component] for component in explorer.form.all()]


def compared(**more: Any) -> Comparison:
    return Comparison(Dialogue().plus("user", TEXT), "base", "aligned", 7, **more)


def last(frames: Any, component: Any) -> Any:
    return [frame[component] for frame in frames if component in frame][-1]


def address_in(markup: str) -> dict[str, str]:
    """The parameters of the first link in `markup`."""
    from html import unescape
    from urllib.parse import parse_qsl

    (query,) = re.findall(r'href="\?([^"]*)"', markup)
    return dict(parse_qsl(unescape(query)))


def test_every_setting_of_a_link_comes_back_out_of_the_form(explorer: Explorer) -> None:
    dialogue = Dialogue().plus("user", "Hello.").plus("assistant", "Yes?").plus("user", "My cat.")
    decoding = Decoding(0.35, 0.8, 1.3, 400)
    for right in (None, 9):
        sent = Comparison(dialogue, "base", "aligned", 7, 0.5, 1.25, decoding, right)
        changes, linked = explorer.restore(encode_link(sent), SAY)
        assert linked is not None and linked.comparison == sent
        assert explorer.comparison([changes[knob] for knob in explorer.form.all()]) == sent


def test_what_a_link_put_before_the_text_is_seen_and_can_be_left(
    explorer: Explorer, engine: Any
) -> None:
    before = Dialogue().plus("user", "I am a <b>thief.").plus("assistant", "Well done!")
    sent = replace(compared(), dialogue=before.plus("user", TEXT))
    for frames in (explorer.play, explorer.row):
        for frame in frames(values_of(explorer, sent), SAY, None):
            if explorer.said in frame:
                markup = frame[explorer.said]
                assert "I am a &lt;b&gt;thief." in markup and "Well done!" in markup
                assert 'href="?"' in markup and "Start without it" in markup
    assert last(explorer.play(values_of(explorer, compared()), SAY, None), explorer.said) == ""


@pytest.mark.parametrize("earlier", [False, True])
def test_help_is_alone_where_a_comparison_is_of_crisis_language(
    explorer: Explorer, engine: Any, earlier: bool
) -> None:
    dialogue = Dialogue().plus("user", "I want to kill myself.")
    if earlier:
        dialogue = dialogue.plus("assistant", "Oh.").plus("user", "It rains.")
    values = values_of(explorer, replace(compared(), dialogue=dialogue))
    empty = (*explorer.panes, explorer.strip, explorer.link)
    for frames in (explorer.play, explorer.row):
        (frame,) = frames(values, SAY, None)
        assert "You do not have to go through this alone" in frame[explorer.said]
        assert "kill myself" not in frame[explorer.said]
        assert all(frame[part] == "" for part in empty), "what was there before is gone"
        assert set(frame) <= set(explorer.outputs())
    assert engine.requests == []


def test_a_page_without_a_link_and_one_with_a_broken_link_play_nothing(explorer: Explorer) -> None:
    assert explorer.restore({}, SAY) == ({}, None)
    for say, words in ((SAY, "damaged"), (texts_of("de"), "beschädigt")):
        changes, linked = explorer.restore({"dialogue": "x"}, say)
        assert linked is None and words in changes[explorer.said]


def test_a_link_opens_the_same_words_and_says_so(explorer: Explorer, engine: Any) -> None:
    first = list(explorer.play(values_of(explorer, compared()), SAY, None))
    address = address_in(last(first, explorer.link))
    _, linked = explorer.restore(address, SAY)
    assert linked is not None
    again = list(explorer.play(values_of(explorer, linked.comparison), SAY, None, linked))
    assert "the same words" in last(again, explorer.said)
    assert engine.requests[0] == engine.requests[1]
    engine.enqueue("Something else.", "Other words.")
    other = list(explorer.play(values_of(explorer, linked.comparison), SAY, None, linked))
    assert "words differ" in last(other, explorer.said)


def test_a_link_says_when_the_models_have_changed_since(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_in(
        last(list(explorer.play(values_of(explorer, compared()), SAY, None)), explorer.link)
    )
    models, contenders = explorer.arena.models, explorer.arena.roster.contenders
    newer = (contenders[0], replace(contenders[1], revision="2"))
    monkeypatch.setattr(models, "roster", replace(models.roster, contenders=newer))
    _, linked = explorer.restore(address, SAY)
    assert linked is not None
    frames = list(explorer.play(values_of(explorer, linked.comparison), SAY, None, linked))
    assert "have changed" in frames[0][explorer.said], "before the replies"
    assert "have changed" in last(frames, explorer.said), "and after them"


def test_a_link_counts_as_a_click_against_the_address(
    explorer: Explorer, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer.arena.store.limits, "rate", RateLimit(explores_per_address=3))
    values = values_of(explorer, compared())
    list(explorer.play(values, SAY, "192.0.2.1"))
    linked = shared_link.Linked(compared())
    for _ in range(4):
        frames = list(explorer.play(values, SAY, "192.0.2.1", linked))
    assert "3 comparisons in 10 minutes" in frames[-1][explorer.said]
    assert len(engine.requests) == 3


def test_the_strip_shows_four_strengths_of_one_model_and_marks_what_is_new(
    explorer: Explorer, engine: Any
) -> None:
    engine.enqueue("I am so sad.", "<b>I am glad.")
    engine.enqueue("I am glad.", "I am delighted.")
    frames = list(explorer.row(values_of(explorer, compared(seed_right=8)), SAY, None))
    markup = last(frames, explorer.strip)
    assert markup.count("<article") == 4 and "1½" in markup and "<b>I" not in markup
    assert '<span class="only">delighted</span>' in markup
    asked = [(r.contender, r.adapter_scale, r.seed) for call in engine.requests for r in call]
    assert asked == [("aligned", scale, 7) for scale in (0.0, 0.5, 1.0, 1.5)]


def test_a_link_promises_the_same_words_only_where_the_engine_does(
    explorer: Explorer, engine: Any
) -> None:
    for repeatable in (True, False):
        engine.repeatable = repeatable
        frames = list(explorer.play(values_of(explorer, compared()), SAY, None))
        assert ("may differ" in last(frames, explorer.link)) is not repeatable


def test_the_cards_link_leads_to_the_same_two_replies(explorer: Explorer, engine: Any) -> None:
    arena = explorer.arena
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    list(arena.stream(voter, opened.round_id))
    receipt = arena.vote(voter, opened.round_id, "b")
    view = arena.find(voter, opened.round_id)
    markup = share_card.share_card(view, arena.roster, "", SAY)
    for secret in (voter, receipt.receipt, opened.round_id):
        assert secret not in markup
    _, linked = explorer.restore(address_in(markup), SAY)
    assert linked is not None
    frames = list(explorer.play(values_of(explorer, linked.comparison), SAY, None, linked))
    assert "the same words" in last(frames, explorer.said)
    rounds, compared_ = engine.requests[0], engine.requests[1]
    assert [r.contender for r in compared_] == [r.contender for r in rounds]
    assert [r.seed for r in compared_] == [r.seed for r in rounds]


def test_the_cards_link_promises_the_same_words_only_where_the_engine_does(
    arena: Arena, engine: Any
) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "b")
    handlers = handlers_of(arena)
    stored = Session(voter=voter, round=opened.round_id).store()
    for repeatable in (True, False):
        engine.repeatable = repeatable
        card = handlers.share(stored)[handlers.parts.card]
        assert "data-copy" in card and ("may differ" in card) is not repeatable


def test_a_card_of_a_contender_that_is_gone_has_no_link(explorer: Explorer) -> None:
    arena = explorer.arena
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "b")
    view = arena.find(voter, opened.round_id)
    other = Roster("other", (Contender("x", "m"), Contender("y", "m")))
    assert shared_link.of_round(view, other) is None
    assert "data-copy" not in share_card.share_card(
        view, SimpleNamespace(contenders=other.contenders), "", SAY
    )  # type: ignore[arg-type]
