"""What one sends to others: the link of a comparison, and the share card, in a real browser."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import CUT, Faults, Served

pytestmark = pytest.mark.browser
OVER_THE_EDGE = """() => {
  const card = document.createElement('div');
  card.innerHTML = atob(document.querySelector('.share img').src.split(',')[1]);
  document.body.append(card);
  const boxes = [...card.querySelectorAll('rect')].slice(2).map((one) => one.getBBox());
  const long = [...card.querySelectorAll('tspan')].filter((line) => {
    const { x, y } = line.getExtentOfChar(0), length = line.getComputedTextLength();
    const within = (at, from, size) => from <= at && at <= from + size;
    const box = boxes.find((b) => within(x, b.x, b.width) && within(y, b.y, b.height));
    return x + length > (box ? box.x + box.width : 1200) - 10;
  }).map((line) => line.textContent);
  card.remove();
  return long;
}"""


def test_explore_opens_compared_and_its_link_opens_the_same_words(
    visitor: Any, served: Served, faults: Faults
) -> None:
    visitor.get_by_role("tab", name="Explore", exact=True).click()
    expect(visitor.locator("#x-pane-b .facts")).to_be_visible()
    visitor.click("#x-steps")
    expect(visitor.locator(".strip article")).to_have_count(4)
    address = visitor.locator("#x-link a").get_attribute("href")
    words = visitor.locator("#x-pane-a .text").inner_text()
    before = len(served.engine.requests)
    visitor.goto(f"{served.url}/{address}")
    expect(visitor.locator("#x-message")).to_contain_text("same words")
    expect(visitor.locator("#x-pane-a .text")).to_have_text(words)
    assert len(served.engine.requests) == before + 1, "it plays once"
    faults.forgive(*CUT)


def test_a_page_without_a_link_asks_nothing_of_the_models(
    visitor: Any, served: Served, faults: Faults
) -> None:
    visitor.wait_for_timeout(1500)
    before = len(served.engine.requests)
    visitor.reload()
    visitor.wait_for_selector("#badge .badge.ready")
    visitor.wait_for_timeout(3000)
    assert len(served.engine.requests) == before
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_be_visible()
    faults.forgive(*CUT)


def test_a_card_is_a_picture_to_save_and_a_link_that_opens_the_comparison(
    visitor: Any, served: Served, faults: Faults, tmp_path: Any
) -> None:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    replies = ("Oh that's good. Are you guys going to have some good?", "W" * 90)
    served.engine.enqueue(*replies)
    visitor.locator(".example", has_text="First flat").click()
    expect(visitor.locator(".tag")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.click("#vote_b")
    visitor.click("#share")
    expect(visitor.locator(".share img")).to_be_visible()
    assert visitor.evaluate(OVER_THE_EDGE) == [], "every line of the card ends inside its box"
    with visitor.expect_download() as waiting:
        visitor.click("[data-png]")
    assert waiting.value.suggested_filename == "empo-arena.png"
    waiting.value.save_as(tmp_path / "card.png")
    data = (tmp_path / "card.png").read_bytes()
    wide, high = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG") and wide == 2400 and high > 600 and len(data) > 20_000
    visitor.click("#card [data-copy]")
    expect(visitor.locator("#card [data-copy]")).to_have_text("Copied")
    address = visitor.evaluate("navigator.clipboard.readText()")
    assert address.startswith(f"{served.url}/?")
    served.engine.enqueue(*replies)
    visitor.goto(address)
    expect(visitor.locator("#x-message")).to_contain_text("same words")
    faults.forgive(*CUT)


def test_a_vote_between_send_and_the_first_frame_is_nobodys(visitor: Any, served: Served) -> None:
    """Until the server answers, the first screen's round still stands there."""
    held: list[Any] = []
    visitor.route("**/queue/join*", lambda route: held.append(route))
    visitor.locator(".example", has_text="First flat").click()
    expect(visitor.locator("#votebar")).to_have_attribute("inert", "")
    visitor.keyboard.press("4")
    box = visitor.locator("#vote_b").bounding_box()
    visitor.mouse.click(box["x"] + 5, box["y"] + 5)
    visitor.wait_for_timeout(300)
    assert len(held) == 1, "nothing but the round was sent"
    held[0].continue_()
    visitor.unroute("**/queue/join*")
    expect(visitor.locator(".tag")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator(".reveal")).to_have_count(0)
    expect(visitor.locator("#votebar")).not_to_have_attribute("inert", "")
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_contain_text("was not kept")
