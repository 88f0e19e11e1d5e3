"""A whole round without a mouse."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

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
    expect(visitor.locator("#agree")).to_be_visible()
    tab_to(visitor, "#agree", most=100)
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".tag")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    tab_to(visitor, "mark.cause", most=100)
    mark = visitor.locator("mark.cause").first
    assert "takes" in mark.evaluate("e => getComputedStyle(e, '::after').content")
    tab_to(visitor, "#vote_b")
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".reveal h3")).to_contain_text("You chose B")
    tab_to(visitor, "#next", most=100)
    visitor.keyboard.press("Enter")
    expect(visitor.locator(".reveal")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.keyboard.press("1")
    expect(visitor.locator(".reveal h3")).to_contain_text("You chose A")
