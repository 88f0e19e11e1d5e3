"""Ten situations in a row in a real browser, with a reload in the middle."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import CUT, Faults, violations

pytestmark = pytest.mark.browser


def test_ten_in_a_row_survive_a_reload_and_end_with_counts(visitor: Any, faults: Faults) -> None:
    visitor.click("#ten")
    expect(visitor.locator(".consent-text")).to_be_focused()
    visitor.click("#agree")
    for number in range(1, 11):
        expect(visitor.locator(".turns")).to_contain_text(f"Situation {number} of 10")
        expect(visitor.locator("#vote_a")).to_be_visible()
        expect(visitor.locator("#box")).to_be_hidden()
        expect(visitor.locator("#examples")).to_be_hidden()
        if number == 4:
            visitor.reload()
            expect(visitor.locator(".turns")).to_contain_text("Situation 4 of 10")
            expect(visitor.locator("#vote_a")).to_be_visible()
        visitor.keyboard.press("1")
        expect(visitor.locator(".reveal")).to_be_focused()
        if number < 10:
            expect(visitor.locator("#results")).to_be_hidden()
            visitor.click("#next")
            expect(visitor.locator(".reveal")).to_have_count(0)
    expect(visitor.locator(".ten-results")).to_contain_text("What you preferred")
    expect(visitor.locator(".share img")).to_be_visible()
    with visitor.expect_download() as caught:
        visitor.click(".share [data-png]")
    assert caught.value.suggested_filename == "empo-arena.png"
    assert violations(visitor) == []
    visitor.reload()
    expect(visitor.locator(".ten-results")).to_be_visible()
    visitor.click("#new")
    expect(visitor.locator(".tag")).to_be_visible()
    expect(visitor.locator(".turns")).to_have_count(0)
    faults.forgive(*CUT)
