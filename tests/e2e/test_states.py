"""The page for everyone: without violations of axe-core in any state, on a phone, in German."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Faults, Served, go_to_tab, violations

pytestmark = pytest.mark.browser
TEXT = "I lost my keys again and my sister laughed."


def opened(chromium: Any, served: Served, **options: Any) -> Any:
    context = chromium.new_context(reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#badge .badge.ready")
    return page


@pytest.fixture
def phone(chromium: Any, served: Served) -> Iterator[Any]:
    page = opened(
        chromium, served, viewport={"width": 390, "height": 844}, locale="de-DE", has_touch=True
    )
    yield page
    page.context.close()


def play(page: Any) -> None:
    page.fill("#box textarea", TEXT)
    page.click("#send")
    for answer in ("#agree", "#refuse"):
        expect(page.locator(answer)).to_be_in_viewport(ratio=1)
    page.click("#agree")
    expect(page.locator(".tag")).to_have_count(0)
    expect(page.locator("#vote_b")).to_be_visible()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_tab_and_state(
    visit: Any, served: Served, faults: Faults, theme: str, width: int
) -> None:
    page = visit(
        color_scheme=theme, reduced_motion="reduce", viewport={"width": width, "height": 900}
    )
    found: list[str] = []

    def look(state: str) -> None:
        found.extend(violations(page, state))

    look("first")
    long = " ".join(f"word{n}." for n in range(400))
    served.engine.enqueue(long, long)
    page.fill("#box textarea", "I want to kill myself tonight.")
    page.click("#send")
    expect(page.locator(".notice.crisis")).to_be_visible()
    look("help")
    page.fill("#box textarea", "I failed my driving test again.")
    page.click("#send")
    expect(page.locator("#agree")).to_be_visible()
    look("consent")
    page.click("#refuse")
    expect(page.locator("#pane_a .text")).to_contain_text("word3")
    look("streaming")
    page.click("#stop")
    expect(page.locator("#pane_a .note")).to_have_text("stopped")
    look("stopped")
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, body="{}"))
    page.click("#vote_b")
    expect(page.locator("#told")).to_contain_text("The server is busy")
    look("queue full")
    page.unroute("**/queue/join*")
    faults.forgive("503")
    expect(page.locator(".reveal")).to_be_visible()
    look("voted")
    served.engine.enqueue("Fine.", RuntimeError("The model broke off with an error."))
    page.locator(".example").first.click()
    expect(page.locator("#message")).to_contain_text("Nothing was counted")
    look("void")
    page.click("#retry")
    expect(page.locator("#vote_b")).to_be_visible()
    page.click("#vote_b")
    page.click("#share")
    expect(page.locator(".share img")).to_be_visible()
    look("card")
    page.fill("#box textarea", "It rained, too.")
    page.click("#send")
    expect(page.locator(".shares")).to_be_attached()
    expect(page.locator("#vote_b")).to_be_visible()
    look("second turn")
    page.click("#vote_b")
    expect(page.locator(".reveal")).to_be_visible()
    page.fill("#box textarea", "x\u0007y")
    page.click("#send")
    expect(page.locator(".message.error")).to_be_visible()
    look("error")
    shows = {
        "Explore": "#x-link a",
        "Board": "#board-words section",
        "Results": ".forest",
        "Data": "#counts table",
        "About": "text=What is kept",
    }
    for place, (name, shown) in enumerate(shows.items(), start=1):
        go_to_tab(page, place)
        expect(page.locator(shown).first).to_be_visible()
        look(name)
        if name == "Explore":
            page.click("#x-steps")
            expect(page.locator(".strip article")).to_have_count(4)
            look("strip")
        if name == "Data":
            page.click("#show_mine")
            expect(page.locator(".mine").first).to_be_visible()
            look("what is stored about me")
    assert not found, "\n".join(found)


def test_a_phone_reaches_the_tabs_that_its_row_has_no_room_for(phone: Any) -> None:
    phone.click("#tabs .overflow-menu > button")
    assert not violations(phone, "menu")
    phone.locator("#tabs .overflow-dropdown button", has_text="Daten").click()
    expect(phone.locator("#counts table")).to_be_visible()


def test_a_german_phone_reads_both_replies_and_votes_with_the_thumb(phone: Any) -> None:
    expect(phone.locator("html")).to_have_attribute("lang", "de")
    expect(phone.locator(".lead")).to_have_text(
        "Zwei Modelle antworten Ihnen. Welches hat verstanden?"
    )
    expect(phone.locator("#lead")).to_contain_text("die Antworten bleiben englisch")
    for pane in ("#pane_a", "#pane_b"):
        assert phone.locator(pane).bounding_box()["y"] < 844, "both replies begin in view"
    chip = phone.locator(".turn .chip").first.bounding_box()
    assert chip["x"] + chip["width"] <= 390, "the emotion in words fits"
    vote = phone.locator("#vote_b").bounding_box()
    assert vote["y"] + vote["height"] <= 844 and vote["y"] > 700, "within the thumb's reach"
    assert phone.locator(".vplot").is_hidden() and phone.locator(".told").first.is_visible()
    phone.locator(".fold input").first.check()
    assert phone.locator(".vplot").is_visible()
    play(phone)
    assert phone.locator(".keys").is_hidden(), "no talk of keys"
    phone.click("#vote_b")
    expect(phone.locator(".reveal h3")).to_contain_text("Sie haben B gewählt")
    assert phone.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    phone.click("#language")
    expect(phone.locator(".reveal h3")).to_contain_text("You chose B")
    expect(phone.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("more", ["", " Call me at +49 30 1234567."])
def test_help_comes_into_view_on_a_phone(phone: Any, more: str) -> None:
    """With personal data the text is held back before it is sent; without, it is sent at once."""
    play(phone)
    phone.click("#vote_b")
    expect(phone.locator(".reveal")).to_be_visible()
    phone.fill("#box textarea", f"I want to kill myself tonight.{more}")
    phone.click("#send")
    help_ = phone.locator(".notice.crisis h3")
    expect(help_).to_be_in_viewport()
    phone.wait_for_timeout(1500)
    expect(help_).to_be_in_viewport()


def test_two_visitors_at_once_see_their_own_rounds(chromium: Any, served: Served) -> None:
    pages = [opened(chromium, served) for _ in range(2)]
    for page, title in zip(pages, ("Old dog", "First flat"), strict=True):
        page.locator(".example", has_text=title).click()
    for page, words in zip(pages, ("paws on the stairs", "very first flat"), strict=True):
        expect(page.locator(".thread")).to_contain_text(words)
        expect(page.locator(".message")).to_contain_text("Read both")
        page.context.close()


@pytest.mark.parametrize("how", ["hover", "focus", "tap"])
def test_a_mark_explains_itself_to_mouse_keyboard_and_touch(
    chromium: Any, served: Served, how: str
) -> None:
    page = opened(chromium, served, has_touch=how == "tap")
    mark = page.locator("mark.cause").first
    told = "e => getComputedStyle(e, '::after').content"
    assert mark.evaluate(told) == "none"
    getattr(mark, how)()
    assert f"takes “{mark.inner_text()}” for a cause" in mark.evaluate(told)
    assert "a cause of the feeling" in mark.get_attribute("aria-description")
    page.context.close()
