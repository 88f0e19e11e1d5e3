"""Ten situations in a row: one fair check of attention, counts at the end, and no word to share."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.arena.jobs import bad_reply
from empo_demo.arena.rounds import Receipt, Reveal, RoundView
from empo_demo.board.habits import Share
from empo_demo.empathy.emotions import GROUP_OF
from empo_demo.ui.arena_tab import ten_results
from empo_demo.ui.arena_tab.handlers import Handlers
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.examples import examples
from empo_demo.ui.texts import texts_of
from empo_demo.ui.visitors import MIXED, REFUSED, TEN, Session, Ten
from tests.ui.test_handlers import handlers_of, merged, shown, visitor

SAY = texts_of("en")


@pytest.fixture
def handlers(arena: Arena) -> Handlers:
    return handlers_of(arena)


def voted(check: bool) -> RoundView:
    tried = rehearsal()
    receipt = Receipt("", "", "a", replace(tried.reveal, attention_check=check), created=False)
    return replace(tried.view, state="voted", receipt=receipt)


def walk(ten: Ten) -> list[bool]:
    """Which of ten rounds are checks, as they are drawn one after another."""
    drawn: list[bool] = []
    for turn in range(TEN):
        drawn.append(ten.check_now(map(voted, drawn)))
        ten = ten.opened(f"{turn:032x}")
    assert ten.done
    return drawn


def test_one_of_ten_is_the_check_anywhere_but_where_it_would_not_be_fair() -> None:
    places = set()
    for _ in range(200):
        ten = Ten.draw()
        assert len(set(ten.places)) == TEN
        drawn = walk(ten)
        assert sum(drawn) == 1
        place = drawn.index(True)
        assert examples()[ten.places[place]].emotion not in MIXED
        places.add(place)
    assert len(places) > 7, "nobody can know where it is"


@pytest.mark.parametrize(
    "stored",
    [
        None,
        7,
        {},
        {"places": list(range(9)), "rounds": []},
        {"places": [0] * 10, "rounds": []},
        {"places": [*range(9), 99], "rounds": []},
        {"places": [*range(9), True], "rounds": []},
        {"places": list(range(10)), "rounds": ["x"]},
        {"places": list(range(10)), "rounds": ["0" * 32] * 11},
    ],
)
def test_ten_that_the_browser_made_up_are_none(stored: Any) -> None:
    assert Ten.read(stored) is None
    assert Session.read({"ten": stored}).ten is None


def test_ten_outlive_the_browsers_storage() -> None:
    ten = Ten.draw().opened("0" * 32)
    session = Session(ten=ten)
    assert Session.read(session.store()).ten == ten
    assert session.opened("1" * 32).ten == ten.opened("1" * 32)
    retried = replace(session, round="0" * 32).opened("2" * 32).ten
    assert retried is not None and retried.rounds == ("2" * 32,), "a new try is no new situation"


def play(handlers: Handlers, stored: Any, verdicts: Iterable[str]) -> dict[Any, Any]:
    """Judge ten from the start; the page after the last vote."""
    p = handlers.parts
    page = merged(handlers.ten(stored))
    for number, verdict in enumerate(verdicts, start=1):
        assert f"Situation {number} of 10" in page[p.steps] and page[p.votes]["visible"]
        parts = [v for k, v in page.items() if k not in (p.badge, p.session)]
        words = re.sub("<[^>]*>", "", shown(parts)).lower()
        assert ("one of them is a check" in words) == (number == 1), "it is said before they begin"
        words = words.replace(SAY("ten.told").lower(), "")
        assert "check" not in words and "aligned" not in words, "nothing tells before the vote"
        page |= handlers.vote(verdict, page[p.session])
        if number < TEN:
            assert f"Next situation ({number + 1} of 10)" in page[p.next]["value"]
            assert page[p.results] == "" and page[p.go_on] == "" and page[p.examples] == ""
            page |= merged(handlers.next(page[p.session]))
    return page


def test_ten_are_judged_counted_and_survive_a_reload(handlers: Handlers) -> None:
    p = handlers.parts
    page = play(handlers, visitor(handlers), ["a", "b", "tie", "both_bad", "a"] * 2)
    results = page[p.results]
    assert "What you preferred" in results and results.count("<tr>") == 4
    assert "fewer than 30 votes older than a day" in results
    assert ("You found the check" in results) != ("got past you" in results)
    assert page[p.next]["visible"] is False and page[p.ten]["visible"]
    again = handlers.restore(page[p.session])
    assert "What you preferred" in again[p.results]
    stored = [one["round"] for one in handlers.arena.my_data(Session.read(page[p.session]).voter)]
    assert sum(bool(one["check_side"]) for one in stored) == 1
    assert handlers.arena.stats().left_out["attention check"] == 1, "it trains and counts nowhere"


def test_the_check_is_plainly_wrong_for_what_the_situation_says(handlers: Handlers) -> None:
    """The scripted SEM hears disappointment in everything; the check does not follow it."""
    p = handlers.parts
    page = play(handlers, visitor(handlers), ["a"] * TEN)
    session = Session.read(page[p.session])
    (check,) = [
        one
        for one in handlers.arena.my_data(session.voter)
        if one["round"]["check_side"] is not None
    ]
    emotion = next(one.emotion for one in examples() if one.title == check["round"]["example"])
    (bad,) = [one for one in check["replies"] if one["contender"] == "check"]
    pleasant = GROUP_OF[emotion] in ("joy", "trust", "anticipation", "surprise")
    assert bad["text"] == bad_reply(bad["revision"])
    assert bad["revision"].startswith("pleasant" if pleasant else "unpleasant")


def test_ten_ask_for_consent_first_and_begin_with_the_answer(handlers: Handlers) -> None:
    p = handlers.parts
    stored = {**visitor(handlers), "consent": ""}
    asked = merged(handlers.ten(stored))
    assert asked[p.consent]["visible"] and handlers.arena.stats().rounds == {}
    page = merged(handlers.refuse("", asked[p.session]))
    assert Session.read(page[p.session]).consent == REFUSED
    assert "Situation 1 of 10" in page[p.steps] and page[p.votes]["visible"]
    told = merged(handlers.next(page[p.session]))
    assert "Vote first" in told[p.message]


def test_whoever_leaves_the_ten_is_not_led_back(handlers: Handlers) -> None:
    p = handlers.parts
    page = merged(handlers.ten(visitor(handlers)))
    for left in (handlers.new(page[p.session]), merged(handlers.choose(1, page[p.session]))):
        assert Session.read(left[p.session]).ten is None
        assert "Situation" not in left.get(p.steps, "")


def test_the_picture_to_share_holds_counts_and_no_word_of_anybody(handlers: Handlers) -> None:
    p = handlers.parts
    page = play(handlers, visitor(handlers), ["a"] * TEN)
    encoded = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page[p.results])
    assert encoded is not None
    words = re.sub("<[^>]*>", " ", base64.b64decode(encoded[1]).decode())
    assert "I judged ten pairs of replies" in words and "aligned" in words
    voter = Session.read(page[p.session]).voter
    for one in handlers.arena.my_data(voter):
        assert one["round"]["dialogue"][-1]["content"] not in words
        assert all(reply["text"] not in words for reply in one["replies"])
    assert voter not in words


def test_everybodys_shares_come_with_their_intervals() -> None:
    shares = {"alignment": Share(412, 0.58, (0.52, 0.631)), "length": None}
    markup = ten_results.results([voted(False)], shares, SAY, kept=True)
    assert "aligned 58% (52% to 63%) of 412 votes" in markup
    assert markup.count("fewer than 30 votes") == 2
    german = ten_results.results([voted(False)], shares, texts_of("de"), kept=False)
    assert re.search(r"58\s%", german) and "nicht aufbewahrt" in german


def test_an_equal_verdict_misses_the_check_and_both_bad_finds_it() -> None:
    def told(verdict: str) -> str:
        view = voted(True)
        assert view.receipt is not None
        reveal: Reveal = replace(view.receipt.reveal, chosen="a")
        receipt = replace(view.receipt, verdict=verdict, reveal=reveal)
        return ten_results.results([replace(view, receipt=receipt)], {}, SAY, kept=True)

    assert all("You found the check" in told(verdict) for verdict in ("a", "both_bad"))
    assert all("got past you" in told(verdict) for verdict in ("b", "tie"))
