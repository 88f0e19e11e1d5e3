"""The Board and the Results in words and markup: from the first vote on, and from the figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import update

from empo_demo.arena.arena import Arena
from empo_demo.errors import NotAllowed
from empo_demo.evaluation.results import RESULTS, read
from empo_demo.ui.arena_tab import share_card
from empo_demo.ui.tabs import board_tab, results_tab
from empo_demo.ui.texts import texts_of
from empo_demo.votes import consent
from empo_demo.votes.models import Reply, Round
from empo_demo.votes.stats import pair_votes

SAY = texts_of("en")


def play(arena: Arena, verdict: str) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(
        voter, dialogue=empty(), text="I lost my keys.", consent=consent.VERSION
    )
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, verdict)


def empty() -> Any:
    from empo_demo.dialogue import Dialogue

    return Dialogue()


def test_the_board_shows_the_first_vote_as_provisional_with_what_is_missing(arena: Arena) -> None:
    assert "No vote yet" in board_tab.drawn(partial(board_tab.board_of, arena), SAY)
    play(arena, "a")
    markup = board_tab.drawn(partial(board_tab.board_of, arena), SAY)
    assert markup.count('<li class="provisional">') == 2
    assert "provisional: 29 more votes to go" in markup and "Votes per day" in markup
    assert ("side" in markup and "matters" in markup) or "length" in markup


def test_the_pair_is_counted_whichever_side_it_sat_on(arena: Arena) -> None:
    for verdict in ("a", "b", "tie", "both_bad", "a"):
        play(arena, verdict)
    found = pair_votes(arena.store, "base", "aligned")
    turned = pair_votes(arena.store, "aligned", "base")
    assert found.votes == 5 and found.neither == 2
    assert (found.one, found.other) == (turned.other, turned.one)
    assert pair_votes(arena.store, "base", "nobody").votes == 0


@pytest.mark.parametrize(
    "change",
    [
        {"crisis": True}, {"personal": True}, {"identity": True}, {"check_side": "a"},
        {"hidden_reason": "spam"}, {"consent": None},
    ],
)  # fmt: skip
def test_what_the_ranking_leaves_out_is_no_vote_on_the_pair(
    arena: Arena, change: dict[str, Any]
) -> None:
    play(arena, "a")
    with arena.store.database.write() as session:
        session.execute(update(Round).values(**change))
    assert pair_votes(arena.store, "base", "aligned").votes == 0


def test_a_vote_on_a_stopped_reply_is_none_on_the_pair(arena: Arena) -> None:
    play(arena, "a")
    with arena.store.database.write() as session:
        session.execute(update(Reply).where(Reply.side == "b").values(reason="stopped"))
    assert pair_votes(arena.store, "base", "aligned").votes == 0


def test_five_sentences_and_a_picture_come_from_the_figures() -> None:
    data = read(RESULTS)
    said = results_tab.sentences(data, SAY)
    assert len(said) == 5
    assert said[0] == "The aligned model says more: 13 words a reply, the base 11."
    assert "closer to people in wording" in said[3] and "not shown" in said[3]
    assert "<svg" in results_tab.picture(data, SAY)
    turned = [{**entry, "p_holm": 0.9} for entry in data.paired]
    unsure = results_tab.sentences(replace(data, paired=turned), SAY)
    assert (
        "are as long as" in unsure[0]
        and "closer to people in wording" not in unsure[3].split("not shown")[0]
    )
    assert results_tab.sentences(replace(data, paired=[]), SAY) == []


def test_figures_have_two_significant_digits_and_readable_names() -> None:
    assert [results_tab.significant(v) for v in (12.52, 0.2672, 0.0106, 2768.4, 0.0)] == [
        "13", "0.27", "0.011", "2,768", "0",
    ]  # fmt: skip
    table = results_tab.table(read(RESULTS), SAY)
    assert "Words per reply" in table and "diff-ER" not in table and 'class="interval"' in table
    assert "people, wrong dialogue" in table


def test_a_card_shows_a_finished_comparison_without_who_voted(arena: Arena, engine: Any) -> None:
    engine.enqueue("<script>x</script> & \x0bso", "Fine.")
    voter = arena.new_voter()
    opened = arena.open_round(voter, empty(), "My <b>cat</b> ran away.")
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
    opened = arena.open_round(voter, empty(), "My cat ran away.")
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a")
    with arena.store.database.write() as session:
        session.execute(update(Round).values(dialogue=empty().plus("user", text).messages()))
    with pytest.raises(NotAllowed, match="No card"):
        share_card.share_card(arena.find(voter, opened.round_id), arena.roster, "", SAY)
