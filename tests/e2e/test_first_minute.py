"""What a stranger reads, sees and presses in the first minute: it is true, and it is clear."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import CUT, Faults, Served, listen
from tests.e2e.test_page import TEXT, send, voted

pytestmark = pytest.mark.browser
LONG = " ".join(f"word{n}." for n in range(120))
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_the_page_says_what_runs_and_that_the_models_are_drawn_anew(visitor: Any) -> None:
    expect(visitor.locator("#badge")).to_contain_text("two variants, on this computer")
    note = visitor.locator("#pair-note")
    expect(note).to_contain_text("drawn anew each turn")
    expect(note).to_contain_text("for comparison, no counsellor")
    steps = visitor.locator("#steps").bounding_box()
    assert abs(note.bounding_box()["y"] - steps["y"]) < 60, "beside the steps"
    blank = "innerHeight - document.querySelector('.reading-room').getBoundingClientRect().bottom"
    assert visitor.evaluate(blank) < 300
    more = "document.documentElement.scrollHeight - innerHeight"
    assert visitor.evaluate(more) < 300


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
@pytest.mark.parametrize("does", ["votes", "takes an example", "writes"])
def test_what_is_pressed_before_the_page_has_its_state_is_not_lost(
    chromium: Any,
    served: Served,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    does: str,
    locale: str,
) -> None:
    make, begun, go = served.arena.new_voter, threading.Event(), threading.Event()

    def slow() -> str:
        first = not begun.is_set()
        begun.set()
        assert not first or go.wait(60)
        return make()

    monkeypatch.setattr(served.arena, "new_voter", slow)
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, locale=locale)
    page = faults.watch(context.new_page(), served.url)
    page.goto(served.url)
    expect(page.locator("#vote_b")).to_be_visible()
    assert begun.wait(60)
    if does == "votes":
        page.click("#vote_b")
    elif does == "writes":
        page.fill("#box textarea", TEXT)
        page.keyboard.press("Enter")
    else:
        page.locator(".example").first.click()
    page.wait_for_timeout(700)
    go.set()
    page.wait_for_selector("#badge .badge.ready")
    if does == "votes":
        expect(page.locator(".reveal")).to_be_visible()
    else:
        if does == "writes":
            page.click("#agree")
        expect(page.locator(".tag")).to_have_count(0)
        expect(page.locator("#vote_b")).to_be_visible()
    context.close()


def test_after_the_vote_one_thing_comes_first(visitor: Any) -> None:
    send(visitor)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_contain_text("A was ")
    expect(visitor.locator("#go-on")).to_contain_text("Go on with this dialogue")
    expect(visitor.locator("#box textarea")).to_be_focused()
    primary = visitor.locator("#tabs button.primary:visible")
    assert primary.all_inner_texts() == ["Send"]
    expect(visitor.locator("#next")).to_contain_text("New situation")
    assert visitor.locator(".only").count() == 0, "no dotted words"
    assert "both models" not in visitor.inner_text(".talk").lower()
    visitor.keyboard.type("It rained, too.")
    visitor.keyboard.press("Enter")
    voted(visitor)
    said = visitor.inner_text("#plots")
    assert "dialogue so far" in said and "earlier replies" in said
    lines = visitor.locator(".vplot polyline:not(.you)")
    turns = visitor.locator(".vplot polyline.you").get_attribute("points").split()
    for line in lines.all():
        assert line.get_attribute("points").split()[0] in turns
    assert lines.count() == 3, "one earlier reply, A and B"


def test_the_warning_about_personal_data_stands_at_the_box(visitor: Any) -> None:
    visitor.fill("#box textarea", "My dog ran away. Call me at +49 30 1234567.")
    visitor.click("#send")
    visitor.click("#agree")
    expect(visitor.locator("#warning")).to_contain_text("phone number")
    warning, box = (visitor.locator(one).bounding_box() for one in ("#warning", "#box"))
    assert 0 <= box["y"] - (warning["y"] + warning["height"]) < 40
    assert visitor.locator(".notice").count() == 1
    visitor.click("#send")
    expect(visitor.locator("#warning .notice")).to_have_count(0)


def test_after_the_vote_what_is_wrong_with_a_text_stands_at_the_box(
    visit: Callable[..., Any],
) -> None:
    page = visit(**PHONE)
    send(page)
    voted(page)
    page.fill("#box textarea", "A bell\u0007 rang.")
    page.click("#send")
    error = page.locator(".message.error")
    expect(error).to_contain_text("control character")
    told, box = (one.bounding_box() for one in (error, page.locator("#box")))
    assert 0 <= box["y"] - (told["y"] + told["height"]) < 40


def test_a_long_turn_is_smaller_and_a_very_long_one_folds(visitor: Any) -> None:
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    usual = visitor.locator(".turn.user .saying").first.evaluate(size)
    send(visitor, "It was a long, long day, and it did not end. " * 10)
    expect(visitor.locator("#vote_b")).to_be_visible()
    assert visitor.locator(".saying.long").evaluate(size) < usual
    assert visitor.locator(".folded").count() == 0
    visitor.click("#new")
    expect(visitor.locator(".tag")).to_be_visible()
    send(visitor, f"{LONG} The end.")
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.get_by_text("The end.")).to_be_hidden()
    visitor.get_by_text("Show all").click()
    expect(visitor.get_by_text("The end.")).to_be_visible()
    expect(visitor.locator(".folded .start")).to_be_hidden()
    visitor.get_by_text("Show less").click()
    expect(visitor.get_by_text("The end.")).to_be_hidden()


def test_stop_while_the_connection_is_lost_says_so_once_and_stops(
    visitor: Any, served: Served, faults: Faults
) -> None:
    served.engine.enqueue(LONG * 4, LONG * 4)
    send(visitor)
    expect(visitor.locator("#pane_a .text")).to_contain_text("word3")
    listen(visitor)
    visitor.context.set_offline(True)
    visitor.click("#stop")
    told = visitor.locator("#told")
    expect(told).to_contain_text("The connection is lost")
    visitor.wait_for_timeout(6000)
    expect(told).to_have_count(1)
    expect(visitor.locator("#message")).to_be_hidden()
    assert visitor.locator(".toast-body:visible").count() == 0
    assert visitor.locator(".caret:visible").count() == 0, "nothing looks as if it went on"
    lost = [one for one in visitor.evaluate("window.heard") if "connection is lost" in one]
    assert len(lost) == 1
    visitor.context.set_offline(False)
    expect(visitor.locator("#vote_a")).to_be_visible()
    expect(told).to_have_count(0)
    assert "word119" not in visitor.inner_text("#pane_a").split("word0.")[-1]
    faults.forgive("ERR_", "Failed to fetch", *CUT)


def test_on_a_phone_nothing_is_offered_that_cannot_be_used(visit: Callable[..., Any]) -> None:
    page = visit(**PHONE)
    expect(page.locator("#box")).to_be_visible()
    expect(page.locator(".turn .who").first).to_be_visible()
    expect(page.locator(".plot h3").first).to_be_visible()
    expect(page.locator(".vplot")).to_be_hidden()
    send(page)
    expect(page.locator("#vote_b")).to_be_visible()
    expect(page.locator("#box")).to_be_hidden()
    expect(page.locator("#send")).to_be_hidden()
    page.click("#vote_b")
    expect(page.locator("#box")).to_be_visible()
    expect(page.locator("#go-on")).to_contain_text("Go on with this dialogue")


def test_the_valence_picture_keeps_a_readable_height_on_a_tablet(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 768, "height": 1024})
    box = page.locator(".vplot").bounding_box()
    assert 120 <= box["height"] <= 260
    drawn = page.locator(".vplot text").first.bounding_box()["height"]
    assert 10 <= drawn <= 24, "its words are as large as the other small words"


def test_explore_says_nothing_twice_and_nothing_that_is_not_so(visitor: Any) -> None:
    visitor.get_by_role("tab", name="Explore", exact=True).click()
    expect(visitor.locator("#x-pane-b .facts")).to_be_visible()
    expect(visitor.get_by_role("heading", name="What does the alignment change?")).to_be_visible()
    assert "alignment" not in visitor.inner_text("#x-pane-a").lower().replace("aligned", "")
    assert "alignment 1" in visitor.inner_text("#x-pane-b")
    for pane, name in (("#x-pane-a", "Base"), ("#x-pane-b", "Aligned")):
        assert visitor.inner_text(pane).count(name) == 1
    expect(visitor.get_by_label("Alignment of the left")).to_have_count(0)


def test_about_says_who_takes_part_and_leads_to_the_api(visitor: Any, faults: Faults) -> None:
    visitor.get_by_role("tab", name="About", exact=True).click()
    expect(visitor.get_by_role("heading", name="Who takes part")).to_be_visible()
    expect(visitor.get_by_text("Both meet in each turn")).to_be_visible()
    visitor.get_by_text("The arena’s API").click()
    docs = visitor.locator(".api-docs")
    expect(docs).to_contain_text("open_round")
    expect(docs).to_contain_text("The voter's token, from new_voter.")
    # Gradio's page of the API asks for more than is served, and cuts the streams of this one.
    faults.forgive("404", *CUT)


def test_a_german_visitor_reads_the_same(visit: Callable[..., Any]) -> None:
    page = visit(locale="de-DE")
    expect(page.locator("#badge")).to_contain_text("zwei Varianten, auf diesem Rechner")
    expect(page.locator("#pair-note")).to_contain_text("neu gezogen")
    send(page, TEXT)
    voted(page)
    expect(page.locator("#go-on")).to_contain_text("Diesen Dialog fortsetzen")
