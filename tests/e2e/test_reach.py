"""The page for those who listen, who use keys, and who set their own colours, motion and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Served, listen
from tests.e2e.test_page import TEXT, send, voted

pytestmark = pytest.mark.browser
LONG = " ".join(f"word{n}." for n in range(200))
NAMED = ("heading", "button", "textbox", "list", "article", "toolbar", "progressbar", "group")


def read_aloud(page: Any) -> list[str]:
    """What Chromium's accessibility tree holds of the Arena tab, in its order: role and name."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    known = {node["nodeId"]: node for node in nodes}
    found: list[str] = []

    def walk(node: Any) -> None:
        role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
        if role in NAMED and not node.get("ignored"):
            found.append(f"{role} {name}".strip())
        for child in node.get("childIds", []):
            if child in known:
                walk(known[child])

    walk(nodes[0])
    return found


def in_order(page: Any, *expected: str) -> None:
    """Each of the `expected` is read after the one before it."""
    found = read_aloud(page)
    place = 0
    for wanted in expected:
        later = [i for i, one in enumerate(found[place:], place) if one.startswith(wanted)]
        assert later, f"{wanted!r} is not read after {expected[: expected.index(wanted)]}: {found}"
        place = later[0] + 1


def test_what_is_read_aloud_has_the_order_of_the_screen_in_all_five_states(
    visitor: Any, served: Served
) -> None:
    top = ("heading EmPO Arena", "heading Two models answer you", "toolbar Try a situation")
    panes = ("article Reply A", "heading A", "article Reply B", "heading B")
    votes = ("button A is better", "button About equal", "button Both bad", "button B is better")
    seen = ("heading What was heard",)
    box = ("textbox Write what happened", "button Send")
    in_order(visitor, *top, "list The three steps", *panes, *votes, *box, *seen)
    visitor.fill("#box textarea", TEXT)
    visitor.press("#box textarea", "Enter")
    expect(visitor.locator(".consent-text")).to_be_focused()
    question = ("group May your words be kept?", "button Yes, keep them", "button No, keep nothing")
    in_order(visitor, *top, *question, *box)
    served.engine.enqueue(LONG, LONG)
    visitor.click("#agree")
    expect(visitor.locator("#pane_a .text")).to_contain_text("word3")
    in_order(visitor, *top, "list The three steps", *panes, *box, "button Stop", *seen)
    assert not set(votes) & set(read_aloud(visitor))
    visitor.click("#stop")
    expect(visitor.locator("#vote_b")).to_be_visible()
    in_order(visitor, *top, "list The three steps", *panes, *votes, "textbox", *seen)
    voted(visitor)
    chosen = ("heading You chose B", "heading Go on with this dialogue", "textbox", "button Send")
    in_order(visitor, *top, *panes, *chosen, "button New situation", *seen)
    assert not set(votes) & set(read_aloud(visitor))


def test_one_live_region_is_always_there_and_says_each_thing_once(
    visitor: Any, served: Served
) -> None:
    live = "[aria-live], [role=status], [role=alert], [role=log]"
    theirs = ":not(.sr-only, .toast-wrap)"  # Gradio's own stay empty
    assert visitor.locator(f":is({live}){theirs}").count() == 1
    listen(visitor)
    served.engine.enqueue(LONG, LONG)
    send(visitor)
    expect(visitor.locator("#pane_a .text")).to_contain_text("word3")
    visitor.click("#stop")
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.click("#vote_b")
    expect(visitor.locator("#live")).to_contain_text("You chose B")
    heard = visitor.evaluate("window.heard")
    for told in ("Both are writing", "Read both, then vote", "You chose B"):
        assert sum(told in one for one in heard) == 1, (told, heard)
    assert visitor.locator(f":is({live}){theirs}").count() == 1
    visitor.click("#send")
    expect(visitor.locator("#live")).to_contain_text("The text is empty")


@pytest.mark.parametrize("width", [1400, 768, 390, 320])
def test_the_switches_are_large_enough_and_have_names(
    visit: Callable[..., Any], width: int
) -> None:
    page = visit(viewport={"width": width, "height": 800}, has_touch=width < 500)
    for switch in ("#language", "#toggle"):
        box = page.locator(switch).bounding_box()
        assert box["width"] >= 24 and box["height"] >= 24, switch
        assert box["x"] + box["width"] <= width, switch
    brand, badge = (page.locator(one).bounding_box() for one in (".brand", "#badge .badge"))
    beside = badge["x"] >= brand["x"] + brand["width"]
    assert beside or badge["y"] >= brand["y"] + brand["height"], "what runs lies on nothing"
    assert badge["x"] + badge["width"] <= width
    expect(page.get_by_role("button", name="Light or dark")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize(("width", "height"), [(700, 450), (320, 256)])
def test_at_200_percent_and_more_everything_is_reached_without_scrolling_sideways(
    visit: Callable[..., Any], width: int, height: int
) -> None:
    """A window of 1400 x 900 has 700 x 450 CSS pixels at 200 %, one of 1280 x 1024 at 400 % 320."""
    page = visit(viewport={"width": width, "height": height})
    send(page)
    expect(page.locator("#vote_b")).to_be_visible()
    for part in ("#pane_a", "#pane_b", "#vote_a", "#vote_b", "#new"):
        page.locator(part).scroll_into_view_if_needed()
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, part
    voted(page)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_whoever_wants_no_motion_gets_none_and_forced_colours_keep_the_choice_visible(
    visit: Callable[..., Any], served: Served
) -> None:
    page = visit(reduced_motion="reduce", forced_colors="active")
    served.engine.enqueue(LONG, LONG)
    send(page)
    expect(page.locator(".caret").first).to_be_visible()
    moving = """() => document.getAnimations()
      .filter((one) => one.effect.getComputedTiming().activeDuration > 10).length"""
    assert page.evaluate(moving) == 0
    page.click("#stop")
    voted(page)
    chosen = page.locator(".pane.chosen")
    width = "e => parseFloat(getComputedStyle(e).outlineWidth)"
    assert chosen.evaluate(width) >= 3
    for part in (".pane.side-a", ".card.reveal", ".example"):
        border = "e => parseFloat(getComputedStyle(e).borderTopWidth)"
        assert page.locator(part).first.evaluate(border) >= 1, part
    colours = "e => getComputedStyle(e).stroke"
    line = page.locator(".vplot polyline.you").evaluate(colours)
    assert line not in ("none", "rgba(0, 0, 0, 0)")


OUTSIDE = """() => {
  const room = document.querySelector('.talk').getBoundingClientRect().right;
  const parts = '.steps li, #votebar button, #pair-note p, .badge, .tag, .controls button, #send';
  return [...document.querySelectorAll(parts)].filter((one) => {
    if (!one.checkVisibility()) return false;
    const range = document.createRange();
    range.selectNodeContents(one);
    const words = range.getBoundingClientRect(), box = one.getBoundingClientRect();
    const most = one.closest('#votebar') ? innerWidth : room;
    return words.left < box.left - 1 || words.right > box.right + 1 || box.right > most + 1;
  }).map((one) => one.innerText);
}"""


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_on_the_narrowest_phone_no_word_leaves_its_place(
    visit: Callable[..., Any], locale: str
) -> None:
    page = visit(viewport={"width": 320, "height": 568}, locale=locale, has_touch=True)
    assert page.evaluate(OUTSIDE) == []
    send(page)
    expect(page.locator("#vote_b")).to_be_visible()
    assert page.evaluate(OUTSIDE) == []
    page.click("#vote_b")
    expect(page.locator(".reveal")).to_be_visible()
    assert page.evaluate(OUTSIDE) == []
    box = "e => e.scrollHeight - e.clientHeight"
    assert page.locator("#box textarea").evaluate(box) <= 2, "what one may say is read whole"
