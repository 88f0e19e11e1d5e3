"""A whole round without a mouse."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from empo_demo.ui.examples import examples

pytestmark = pytest.mark.browser
TEXT = "I failed my driving test again."


def tab_to(page: Any, selector: str, *, most: int = 60) -> None:
    """Press Tab until what `selector` finds has the focus, and see that the focus is visible."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus on {selector} can be seen"
            return
    raise AssertionError(f"{selector} is not reached by {most} presses of Tab")


def test_a_whole_round_is_played_with_the_keyboard_alone(visitor: Any) -> None:
    tab_to(visitor, "#box textarea")
    visitor.keyboard.type(TEXT)
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".consent-text")).to_be_focused()
    tab_to(visitor, "#agree", most=2)
    visitor.keyboard.press("Enter")
    expect(visitor.locator("#box textarea")).to_be_focused()
    expect(visitor.locator(".tag")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator("#box textarea")).to_be_focused()
    tab_to(visitor, "mark.cause", most=100)
    mark = visitor.locator("mark.cause").first
    assert "takes" in mark.evaluate("e => getComputedStyle(e, '::after').content")
    tab_to(visitor, "#vote_b")
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".reveal h3")).to_contain_text("You chose B")
    expect(visitor.locator(".reveal")).to_be_focused()
    tab_to(visitor, "#box textarea", most=2)
    tab_to(visitor, "#next", most=2)
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".reveal")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.keyboard.press("1")
    expect(visitor.locator(".reveal h3")).to_contain_text("You chose A")
    expect(visitor.locator(".reveal")).to_be_focused()


def test_the_examples_are_one_stop_of_the_tab_key_and_the_arrows_go_along_them(
    visitor: Any,
) -> None:
    assert visitor.locator(".example[tabindex='0']").count() == 1
    tab_to(visitor, ".example")
    for key, place in (("ArrowRight", 1), ("End", -1), ("ArrowLeft", -2), ("Home", 0)):
        visitor.keyboard.press(key)
        expect(visitor.locator(".example").nth(place)).to_be_focused()
    visitor.keyboard.press("ArrowRight")
    visitor.keyboard.press("Tab")
    assert not visitor.evaluate("document.activeElement.matches('.example')")
    visitor.keyboard.press("Shift+Tab")
    expect(visitor.locator(".example").nth(1)).to_be_focused()
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".thread")).to_contain_text(examples()[1].text[:30])


def test_a_box_that_waits_for_the_vote_keeps_the_focus_and_gives_its_keys(visitor: Any) -> None:
    visitor.fill("#box textarea", TEXT)
    visitor.press("#box textarea", "Enter")
    visitor.click("#agree")
    expect(visitor.locator(".tag")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator("#box textarea")).to_be_focused()
    visitor.keyboard.press("Enter")
    visitor.keyboard.type("x2")
    expect(visitor.locator(".reveal h3")).to_contain_text("about equal")
    expect(visitor.locator("#box textarea")).to_have_value("")
