"""The text box in a real browser: it stays alive, it says what is missing, it cuts nothing."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from empo_demo.dialogue import MAX_TEXT
from tests.e2e.conftest import Served
from tests.e2e.test_page import TEXT, send, voted

pytestmark = pytest.mark.browser
BOX = "#box textarea"
LONG = " ".join(f"word{n}." for n in range(300))


def begin_anew(page: Any) -> None:
    """Press New dialogue, and play a round to its vote."""
    page.click("#new")
    plays_on(page)


def leave(page: Any) -> None:
    """Press New dialogue while a round is being answered, and wait until the page has left it."""
    with page.expect_response("**/gradio_api/cancel"):
        page.click("#new")


def plays_on(page: Any) -> None:
    # The first screen's round to rehearse is back.
    expect(page.locator(".tag")).to_be_visible()
    expect(page.locator(BOX)).to_be_editable()
    expect(page.locator("#send")).to_be_enabled()
    assert page.input_value(BOX) == ""
    send(page, "It rained on my birthday.")
    expect(page.locator("li.turn.user")).to_have_count(1)
    expect(page.locator("li.turn.user p").first).to_contain_text("birthday")
    voted(page)


def test_new_dialogue_before_the_vote_leaves_the_box_alive(visitor: Any) -> None:
    send(visitor)
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator(BOX)).not_to_be_editable()
    begin_anew(visitor)


def test_new_dialogue_while_they_write_stops_them_and_stays_new(
    visitor: Any, served: Served
) -> None:
    closed = served.engine.closed
    served.engine.enqueue(LONG, LONG)
    send(visitor)
    expect(visitor.locator("#pane_a .pane .text")).to_contain_text("word3")
    leave(visitor)
    plays_on(visitor)
    assert served.engine.closed == closed + 1, "the models write for nobody no more"


def test_new_dialogue_after_a_failure_leaves_the_box_alive(visitor: Any, served: Served) -> None:
    served.engine.enqueue("Fine.", RuntimeError("The model broke off with an error; try again."))
    send(visitor)
    expect(visitor.locator("#retry")).to_be_visible()
    begin_anew(visitor)


@pytest.mark.parametrize("text", ["", " \n "])
@pytest.mark.parametrize("key", [False, True])
def test_an_empty_send_goes_to_the_box_and_asks_nothing(
    visitor: Any, served: Served, text: str, key: bool
) -> None:
    before = len(served.engine.requests)
    visitor.fill(BOX, text)
    if key:
        visitor.press(BOX, "Enter")
    else:
        visitor.click("#send")
    expect(visitor.locator(BOX)).to_be_focused()
    expect(visitor.locator("#message")).to_contain_text("The text is empty")
    expect(visitor.locator("#consent")).to_be_hidden()
    assert len(served.engine.requests) == before
    # The vote bar of the first screen has come back to life.
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_be_visible()


def test_an_empty_send_brings_the_box_into_view_on_a_phone(visit: Any) -> None:
    page = visit(viewport={"width": 390, "height": 844}, locale="de-DE")
    page.click("#send")
    expect(page.locator("#message")).to_contain_text("Der Text ist leer")
    expect(page.locator(BOX)).to_be_focused()
    lower = "document.querySelector('#box textarea').getBoundingClientRect().bottom"
    bar = "document.querySelector('#votebar').getBoundingClientRect().top"
    page.wait_for_function(f"{lower} < {bar}")


@pytest.mark.parametrize(("tab", "box"), [(0, BOX), (1, "#x-text textarea")])
def test_a_long_text_is_counted_and_nothing_of_it_is_cut(visitor: Any, tab: int, box: str) -> None:
    visitor.get_by_role("tab").nth(tab).click()
    counted = visitor.locator(".counted:visible")
    visitor.fill(box, "x" * 1_499)
    expect(counted).to_have_count(0)
    visitor.fill(box, "x" * 1_500)
    expect(counted).to_have_text("1,500 of 2,000 characters")
    visitor.fill(box, "x" * MAX_TEXT)
    expect(counted).to_contain_text("2,000 of 2,000 characters")
    expect(counted).to_contain_text("no more")
    visitor.fill(box, f" {'é😀' * 1_100}\n")
    expect(counted).to_contain_text("2,200 of 2,000 characters: 200 too many")
    assert len(visitor.input_value(box)) == 2_202
    visitor.fill(box, "Short.")
    expect(counted).to_have_count(0)


def test_a_text_that_is_too_long_stays_in_the_box_with_the_reason(visitor: Any) -> None:
    visitor.fill(BOX, "y" * 2_345)
    visitor.click("#send")
    expect(visitor.locator("#message")).to_contain_text("2,345 characters; at most 2,000")
    expect(visitor.locator("#consent")).to_be_hidden()
    assert visitor.input_value(BOX) == "y" * 2_345


def test_the_count_goes_with_the_text(visitor: Any) -> None:
    long = "I failed again. " * 100
    visitor.fill(BOX, long)
    expect(visitor.locator(".counted")).to_be_visible()
    visitor.click("#new")
    expect(visitor.locator(BOX)).to_have_value("")
    expect(visitor.locator(".counted:visible")).to_have_count(0)
    send(visitor, long)
    expect(visitor.locator(".counted:visible")).to_have_count(0)
    voted(visitor)


def test_a_german_count_is_german(visit: Any) -> None:
    page = visit(locale="de-DE")
    page.fill(BOX, "x" * 2_001)
    expect(page.locator(".counted")).to_contain_text("2.001 von 2.000 Zeichen: 1 zu viel")
    page.fill(BOX, "x" * 1_750)
    expect(page.locator(".counted")).to_have_text("1.750 von 2.000 Zeichen")


def test_a_comment_is_counted_too(visitor: Any) -> None:
    send(visitor, TEXT)
    voted(visitor)
    visitor.click("#rate button")
    visitor.fill("#comment textarea", "z" * 2_010)
    expect(visitor.locator(".counted:visible")).to_contain_text("10 too many")
    visitor.click("#rate_save")
    expect(visitor.locator("#message")).to_contain_text("2,010 characters")
