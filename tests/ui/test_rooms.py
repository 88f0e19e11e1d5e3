"""The Board and the Results in words and markup: from the first vote on, and from the figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import update

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed
from empo_demo.evaluation.results import RESULTS, read
from empo_demo.ui.arena_tab import share_card
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.examples import EXPLORED, REHEARSED, examples
from empo_demo.ui.tabs import board_tab, results_tab
from empo_demo.ui.texts import texts_of
from empo_demo.votes import consent
from empo_demo.votes.models import Reply, Round, Vote, now
from empo_demo.votes.stats import PairVotes, situation_votes

SAY = texts_of("en")


TEXT = "I lost my keys."


def play(arena: Arena, verdict: str, text: str = TEXT) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), text, consent=consent.VERSION, example="Lost keys")
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, verdict)


def found(arena: Arena, one: str = "base", other: str = "aligned", age: int = 25) -> PairVotes:
    """The votes on the situation, when all of them are `age` hours old."""
    with arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=age)))
    return situation_votes(arena.store, Dialogue().plus("user", TEXT), (one, other))


def test_the_board_shows_the_first_vote_as_provisional_with_what_is_missing(arena: Arena) -> None:
    assert "No vote yet" in board_tab.drawn(partial(board_tab.board_of, arena), SAY)
    play(arena, "a")
    markup = board_tab.drawn(partial(board_tab.board_of, arena), SAY)
    assert markup.count('<li class="provisional">') == 2
    assert "provisional: 29 more votes to go" in markup and "Votes per day" in markup
    assert "until then there are counts only" in markup and "matters" not in markup


def test_the_pair_is_counted_whichever_side_it_sat_on(arena: Arena) -> None:
    for verdict in ("a", "b", "tie", "both_bad", "a"):
        play(arena, verdict)
    straight, turned = found(arena), found(arena, "aligned", "base")
    assert straight.votes == 5 and straight.neither == 2
    assert (straight.one, straight.other) == (turned.other, turned.one)
    assert found(arena, "base", "nobody").votes == 0


def test_a_younger_vote_and_one_on_another_situation_are_not_told(arena: Arena) -> None:
    play(arena, "a")
    play(arena, "b", "I lost my job.")
    assert found(arena).votes == 1
    assert found(arena, age=23).votes == 0


@pytest.mark.parametrize(
    "change",
    [
        {"crisis": True},
        {"personal": True},
        {"identity": True},
        {"check_side": "a"},
        {"hidden_reason": "spam"},
        {"consent": None},
    ],
)
def test_what_the_ranking_leaves_out_is_no_vote_on_the_pair(
    arena: Arena, change: dict[str, Any]
) -> None:
    play(arena, "a")
    with arena.store.database.write() as session:
        session.execute(update(Round).values(**change))
    assert found(arena).votes == 0


def test_a_vote_on_a_stopped_reply_is_none_on_the_pair(arena: Arena) -> None:
    play(arena, "a")
    with arena.store.database.write() as session:
        session.execute(update(Reply).where(Reply.side == "b").values(reason="stopped"))
    assert found(arena).votes == 0


def test_the_sentences_and_the_picture_come_from_the_figures() -> None:
    data = read(RESULTS)
    said = results_tab.sentences(data, SAY)
    assert "right feeling" in said[0] and "more, and it stands" in said[0]
    assert any("closer to people in wording" in line for line in said)
    assert "<svg" in results_tab.picture(data, SAY)
    turned = [{**entry, "p_holm": 0.9} for entry in data.paired]
    unsure = results_tab.sentences(replace(data, paired=turned), SAY)
    assert len(unsure) == len(said) and "no difference that stands" in unsure[0]
    assert not any("It is closer to people" in line for line in unsure)
    assert results_tab.sentences(replace(data, paired=[]), SAY) == []


def test_figures_have_two_significant_digits_and_readable_names() -> None:
    assert [results_tab.significant(v) for v in (12.52, 0.2672, 0.0106, 2768.4, 0.0)] == [
        "13",
        "0.27",
        "0.011",
        "2,768",
        "0",
    ]
    table = results_tab.table(read(RESULTS), SAY)
    assert "Words per reply" in table and "diff-ER" not in table and 'class="interval"' in table
    assert "people, wrong dialogue" in table


def test_a_card_shows_a_finished_comparison_without_who_voted(arena: Arena, engine: Any) -> None:
    engine.enqueue("<script>x</script> & \x0bso", "Fine.")
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "My <b>cat</b> ran away.")
    list(arena.stream(voter, opened.round_id))
    with pytest.raises(NotAllowed, match="Vote first"):
        share_card.share_card(arena.find(voter, opened.round_id), arena.roster, "", SAY)
    receipt = arena.vote(voter, opened.round_id, "b")
    drawn = share_card.svg(arena.find(voter, opened.round_id), SAY)
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.text]
    assert "My <b>cat</b> ran away." in texts and "<script>" not in drawn
    assert voter not in drawn and receipt.receipt not in drawn and opened.round_id not in drawn
    assert "data:image/svg+xml" in share_card.share_card(
        arena.find(voter, opened.round_id), arena.roster, "", SAY
    )


@pytest.mark.parametrize("text", ["I want to kill myself.", "Call me at +44 20 7946 0958."])
def test_what_an_export_holds_back_gets_no_card(arena: Arena, text: str) -> None:
    """An earlier version may have stored what would open no round now."""
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "My cat ran away.")
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a")
    with arena.store.database.write() as session:
        session.execute(update(Round).values(dialogue=Dialogue().plus("user", text).messages()))
    with pytest.raises(NotAllowed, match="No card"):
        share_card.share_card(arena.find(voter, opened.round_id), arena.roster, "", SAY)


def test_no_situation_comes_twice_on_the_first_screens() -> None:
    texts = [one.text for one in examples()]
    assert len({*texts, REHEARSED, EXPLORED}) == len(texts) + 2
    assert rehearsal().view.dialogue.turns[-1].content == REHEARSED
    sides = (rehearsal().reveal.a.contender, rehearsal().reveal.b.contender)
    assert sorted(sides) == ["aligned", "base"]
