"""The page in German: no English sentence is left in any tab or state."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from empo_demo.ui.texts import FOLDER
from tests.e2e.conftest import Served

pytestmark = pytest.mark.browser
WALK = """() => {
  document.querySelectorAll('details').forEach((one) => { one.open = true; });
  // What people and models wrote stays as it came.
  const theirs = 'body [lang=en], .turn.user p:first-child, .words b, .share img, script, style';
  const shown = (node) => node.checkVisibility() && !node.closest(theirs);
  const found = [];
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const text = nodes.currentNode.textContent.trim();
    if (text && shown(nodes.currentNode.parentElement)) found.push(text);
  }
  for (const name of ['aria-label', 'placeholder', 'title', 'alt', 'data-why', 'data-done']) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      if (shown(node)) found.push(node.getAttribute(name));
    }
  }
  return found;
}"""
ENGLISH = frozenset(
    {
        "the",
        "of",
        "and",
        "is",
        "are",
        "you",
        "your",
        "with",
        "this",
        "that",
        "what",
        "which",
        "have",
        "has",
        "were",
        "from",
        "by",
        "how",
        "who",
        "they",
        "their",
        "there",
        "here",
        "be",
        "been",
        "it",
        "its",
        "for",
        "to",
        "on",
        "at",
        "or",
    }
)
"""Words that no German sentence has."""


def own_words() -> set[str]:
    """What the English page says and the German one must not."""
    english, german = (
        json.loads((FOLDER / f"{name}.json").read_text(encoding="utf8")) for name in ("en", "de")
    )
    german.pop("sentences")
    return {text for key, text in english.items() if text != german[key]} - {*german.values(), ""}


def english_in(page: Any, state: str) -> list[str]:
    known = own_words()
    found = []
    for text in page.evaluate(WALK):
        words = [word.strip(".,:;!?()„“") for word in text.lower().split()]
        if text in known or sum(word in ENGLISH for word in words) > 1:
            found.append(f"{state}: {text[:90]}")
    return found


def test_the_search_finds_the_english_page(visit: Any) -> None:
    assert len(english_in(visit(locale="en-GB"), "first")) > 10


def test_no_english_sentence_is_left_on_the_german_page(visit: Any, served: Served) -> None:
    page = visit(locale="de-DE")
    found = english_in(page, "first")
    page.fill("#box textarea", "I want to kill myself.")
    page.click("#send")
    expect(page.locator(".notice.crisis")).to_be_visible()
    found += english_in(page, "crisis")
    page.fill("#box textarea", "My cat ran away. Call me at +49 30 1234567.")
    page.click("#send")
    expect(page.locator("#agree")).to_be_visible()
    found += english_in(page, "consent")
    page.click("#agree")
    expect(page.locator(".notice.hint")).to_have_count(1)
    found += english_in(page, "notices")
    served.engine.enqueue("Fine.", RuntimeError("The model broke off with an error."))
    page.click("#send")
    expect(page.locator("#retry")).to_be_visible()
    expect(page.locator("#message")).to_contain_text("Das Modell brach mit einem Fehler ab")
    found += english_in(page, "void")
    page.click("#retry")
    expect(page.locator("#vote_b")).to_be_visible()
    found += english_in(page, "votable")
    page.click("#vote_b")
    expect(page.locator(".reveal")).to_be_visible()
    page.click("#share")
    expect(page.locator("#message")).to_contain_text("Zeichen einer Krise")
    page.locator("#rate button").first.click()
    expect(page.locator("#rate_save")).to_be_visible()
    found += english_in(page, "voted")
    page.locator(".example").first.click()
    expect(page.locator("#vote_b")).to_be_visible()
    page.click("#vote_b")
    page.click("#share")
    expect(page.locator(".share img")).to_be_visible()
    found += english_in(page, "card")
    shows = {
        "Erkunden": "#x-link a",
        "Stand": "#board-words section",
        "Ergebnisse": ".forest",
        "Daten": "#counts table",
        "Über": "text=Was aufbewahrt wird",
    }
    for name, shown in shows.items():
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.locator(shown).first).to_be_visible()
        if name == "Erkunden":
            page.get_by_role("button", name="Dekodierung").click()
        if name == "Daten":
            page.click("#show_mine")
            expect(page.locator(".mine").first).to_be_visible()
            page.click("#prepare")
            expect(page.locator("#download")).to_be_visible()
        found += english_in(page, name)
    assert not found, "\n".join(found)


def test_a_full_queue_and_a_lost_server_are_told_in_german(visit: Any, faults: Any) -> None:
    page = visit(locale="de-DE")
    answers = [503, None]

    def answer(route: Any) -> None:
        if not answers:
            route.continue_()
        elif (status := answers.pop()) is None:
            route.abort()
        else:
            route.fulfill(status=status, body="{}")

    page.route("**/queue/join*", answer)
    page.click("#vote_b")
    expect(page.locator("#told")).to_contain_text("Die Verbindung ist unterbrochen")
    expect(page.locator("#told")).to_contain_text("Der Server ist beschäftigt")
    expect(page.locator(".reveal")).to_be_visible()
    faults.forgive("503", "ERR_FAILED")
