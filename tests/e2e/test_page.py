"""A visitor's round in a real browser."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from empo_demo.ui.examples import Example, examples
from empo_demo.votes.models import Vote, now
from tests.conftest import ephemeral_rounds
from tests.e2e.conftest import CUT, Faults, Served

pytestmark = pytest.mark.browser
TEXT = "I failed my driving test again."


def send(page: Any, text: str = TEXT) -> None:
    """The first text asks whether it may be kept, and goes on by itself."""
    page.fill("#box textarea", text)
    page.click("#send")
    if "agreed" not in page.context.__dict__:
        page.click("#agree")
        page.context.__dict__["agreed"] = True
        expect(page.locator("#consent")).to_be_hidden()
    # The first screen's own round is gone, with its vote bar.
    expect(page.locator(".tag")).to_have_count(0)


def voted(page: Any) -> None:
    """Until the round is ready, then the key of the last button."""
    expect(page.locator("#vote_b")).to_be_visible()
    page.locator("h1").first.click()
    page.keyboard.press("4")
    expect(page.locator(".reveal")).to_be_visible()


def test_a_visitor_plays_a_round_with_the_keyboard_and_goes_on(visitor: Any) -> None:
    send(visitor)
    voted(visitor)
    expect(visitor.locator(".reveal h3")).to_contain_text("You chose B")
    expect(visitor.locator(".reveal")).to_contain_text("Aligned")
    expect(visitor.locator("#pane_b .pane.chosen")).to_be_visible()
    expect(visitor.locator(".chip").first).to_contain_text("disappointed")
    expect(visitor.locator("mark.cause").first).to_have_text("I")
    expect(visitor.locator(".vplot")).to_be_visible()
    send(visitor, "It rained, too.")
    voted(visitor)
    expect(visitor.locator("li.turn")).to_have_count(3)


def test_keys_do_nothing_before_both_replies_are_there(visitor: Any, served: Served) -> None:
    served.engine.enqueue(" ".join(["word"] * 60), " ".join(["word"] * 60))
    send(visitor)
    expect(visitor.locator("#pane_a .pane .text")).to_contain_text("word")
    visitor.locator("h1").first.click()
    visitor.keyboard.press("1")
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator(".reveal")).to_have_count(0)


def test_nothing_is_sent_before_the_visitor_has_chosen(visitor: Any, served: Served) -> None:
    before = len(served.engine.requests)
    visitor.fill("#box textarea", TEXT)
    visitor.click("#send")
    expect(visitor.locator("#consent")).to_be_visible()
    expect(visitor.locator("#consent")).to_contain_text("May your words be kept?")
    assert len(served.engine.requests) == before
    assert visitor.input_value("#box textarea") == TEXT
    visitor.click("#refuse")
    expect(visitor.locator("#pane_a .pane .text")).to_have_text("I am sorry to hear that.")
    assert ephemeral_rounds(served.arena.store)


def test_one_click_on_an_example_and_the_replies_write_themselves(visitor: Any) -> None:
    expect(visitor.locator("#votebar")).to_be_visible()
    expect(visitor.locator(".tag")).to_contain_text("nothing counts")
    visitor.locator(".example", has_text="Old dog").click()
    expect(visitor.locator("li.turn")).to_have_count(3)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_contain_text("was not kept")
    visitor.click("#next")
    expect(visitor.locator("li.turn")).to_have_count(1)
    expect(visitor.locator(".reveal")).to_have_count(0)
    expect(visitor.locator("#vote_b")).to_be_visible()


def test_the_rehearsal_can_be_voted_on_and_counts_nowhere(visitor: Any, served: Served) -> None:
    votes = sum(served.arena.stats().votes.values())
    visitor.click("#vote_b")
    expect(visitor.locator(".reveal")).to_contain_text("the aligned model")
    assert sum(served.arena.stats().votes.values()) == votes


def test_markup_of_users_and_models_is_shown_as_text(visitor: Any, served: Served) -> None:
    nasty = "<img src=x onerror=window.pwned=1> ${window.pwned=1} **b** ![i](http://x/y.png)"
    reply = "<script>window.pwned=1</script> <|assistant|> {{7*7}} [l](javascript:alert(1))"
    served.engine.enqueue(reply, reply)
    visitor.fill("#box textarea", nasty)
    visitor.click("#send")
    visitor.click("#agree")
    # The address in it is pointed out first, and the text stays where it is.
    expect(visitor.locator("#warning")).to_contain_text("a link")
    assert visitor.input_value("#box textarea") == nasty
    visitor.click("#send")
    expect(visitor.locator("#vote_a")).to_be_visible()
    expect(visitor.locator("li.turn.user p").first).to_have_text(nasty)
    expect(visitor.locator("#pane_a .pane .text")).to_have_text(reply)
    assert visitor.evaluate("window.pwned") is None
    assert visitor.locator(".thread img, .pane img, .pane script").count() == 0


def test_a_reload_finds_its_round_again(visitor: Any, faults: Faults) -> None:
    send(visitor, "My sister is coming home.")
    expect(visitor.locator("#vote_a")).to_be_visible()
    said = "I am sorry to hear that."
    expect(visitor.locator("#pane_a .pane .text")).to_have_text(said)
    visitor.reload()
    expect(visitor.locator("#vote_a")).to_be_visible()
    expect(visitor.locator("#pane_a .pane .text")).to_have_text(said)
    voted(visitor)
    faults.forgive(*CUT)


def test_stop_keeps_what_was_said(visitor: Any, served: Served) -> None:
    long = " ".join(f"word{n}." for n in range(200))
    served.engine.enqueue(long, long)
    send(visitor)
    expect(visitor.locator("#pane_a .pane .text")).to_contain_text("word5")
    visitor.click("#stop")
    expect(visitor.locator("#pane_a .note")).to_have_text("stopped")
    expect(visitor.locator("#vote_a")).to_be_visible()
    assert "word199" not in visitor.inner_text("#pane_a")


def test_a_side_that_fails_says_so_and_can_be_tried_again(visitor: Any, served: Served) -> None:
    served.engine.enqueue("Fine.", RuntimeError("The model broke off with an error; try again."))
    send(visitor)
    expect(visitor.locator("#message")).to_contain_text("Nothing was counted")
    expect(visitor.locator("#votebar")).to_be_hidden()
    visitor.click("#retry")
    expect(visitor.locator("#vote_a")).to_be_visible()


def test_help_is_alone_after_crisis_language(visitor: Any, served: Served) -> None:
    send(visitor)
    voted(visitor)
    asked = len(served.engine.requests)
    visitor.fill("#box textarea", "I want to kill myself tonight.")
    visitor.click("#send")
    expect(visitor.locator(".notice.crisis a").first).to_be_visible()
    for part in ("pane_a", "votebar", "reveal", "plots", "heard", "thread", "examples", "consent"):
        expect(visitor.locator(f"#{part}")).to_be_hidden()
    assert len(served.engine.requests) == asked
    visitor.fill("#box textarea", "It was a long day, that is all.")
    visitor.click("#send")
    expect(visitor.locator("#vote_a")).to_be_visible()
    expect(visitor.locator(".notice.crisis")).to_be_hidden()


def test_a_client_in_a_crisis_gets_the_lines_and_no_round(served: Served) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(served.url, verbose=False)
    voter = client.predict(api_name="/new_voter")
    asked = len(served.engine.requests)
    for call in (
        {"voter": voter, "dialogue": [], "text": "I want to die.", "api_name": "/open_round"},
        {"text": "I want to die.", "api_name": "/analyze"},
    ):
        with pytest.raises(AppError, match=r"findahelpline\.com"):
            client.predict(**call)
    assert client.predict(voter, api_name="/my_data") == []
    assert len(served.engine.requests) == asked


def test_a_phone_shows_no_horizontal_bar(visit: Any) -> None:
    page = visit(viewport={"width": 390, "height": 844})
    send(page)
    voted(page)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_every_tab_is_as_wide_as_the_first(visitor: Any) -> None:
    first = visitor.locator("#tabs").bounding_box()["width"]
    for name in ("Explore", "Board", "Results", "Data", "About"):
        visitor.get_by_role("tab", name=name, exact=True).click()
        assert visitor.locator("#tabs").bounding_box()["width"] == first, name


def test_a_pane_has_its_border_on_all_four_sides(visitor: Any) -> None:
    send(visitor)
    pane = visitor.locator("#pane_a .pane")
    expect(pane).to_be_visible()
    for side in ("top", "right", "bottom", "left"):
        expect(pane).to_have_css(f"border-{side}-width", "1px")
    expect(visitor.locator("#vote_b")).to_be_visible()


def test_a_client_plays_a_round_and_no_byte_before_the_vote_names_a_contender(
    served: Served,
) -> None:
    from gradio_client import Client

    client = Client(served.url, verbose=False)
    voter = client.predict(api_name="/new_voter")
    consent = client.predict(api_name="/consent")["version"]
    opened = client.predict(voter, [], TEXT, consent, api_name="/open_round")
    job = client.submit(voter, opened["round_id"], api_name="/stream")
    frames = [*job]
    assert set(frames[-1]["finished"]) == {"a", "b"} and frames[-1]["a"]
    found = client.predict(voter, opened["round_id"], api_name="/find_round")
    raw = json.dumps([opened, frames, found]).lower()
    assert not any(secret in raw for secret in ("aligned", "base", "rev-", "adapter"))
    # Explore lists all contenders, so their names are no secret; who answers is.
    assert "rev-base-1" not in json.dumps(client.config)
    receipt = client.predict(voter, opened["round_id"], "a", {}, "", api_name="/vote")
    assert {receipt["reveal"][s]["contender"] for s in "ab"} == {"base", "aligned"}
    dialogue = client.predict(voter, opened["round_id"], api_name="/go_on")
    assert dialogue[-1] == {"role": "assistant", "content": frames[-1]["a"]}
    analysis = client.predict("I lost my keys.", [], api_name="/analyze")
    assert len(analysis["emotions"]) == 32
    assert len(client.predict(voter, api_name="/my_votes")) == 1


def test_no_byte_that_the_page_gets_before_the_vote_names_a_side(
    visitor: Any, served: Served
) -> None:
    served.sent.clear()
    send(visitor)
    expect(visitor.locator("#vote_b")).to_be_visible()
    before = bytes(served.sent).lower()
    voted(visitor)
    after = bytes(served.sent).lower()
    assert b"sorry" in before, "the replies are among the bytes"
    for secret in (b"aligned", b"base-weights", b"rev-", b"adapter", b'"contender"'):
        assert secret not in before
    assert b"rev-aligned-1" in after or b"aligned" in after, "the search would have found it"


def test_a_stranger_with_curl_is_refused_in_plain_words(served: Served) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(served.url, verbose=False)
    voter, thief = (client.predict(api_name="/new_voter") for _ in "ab")

    def refused(match: str, *arguments: Any, api_name: str = "/vote") -> None:
        with pytest.raises(AppError, match=match):
            client.predict(*arguments, api_name=api_name)

    consent = client.predict(api_name="/consent")["version"]
    opened = client.predict(voter, [], TEXT, consent, api_name="/open_round")["round_id"]
    refused(r"no such round", voter, "0" * 32, "a", {}, "")
    refused("token", "me", [], TEXT, "", api_name="/open_round")
    refused("both replies must be finished first", voter, opened, "a", {}, "")
    client.predict(voter, opened, api_name="/stream")
    refused(r"no such round", thief, opened, "a", {}, "")
    refused("There is no verdict 'aligned'", voter, opened, "aligned", {}, "")
    refused("There is no slider", voter, opened, "a", {"c_natural": 50}, "")
    refused("may hold a number from 0 to 100", voter, opened, "a", {"a_natural": 1e9}, "")
    refused("at most", voter, opened, "a", {}, "x" * 900_000)
    first = client.predict(voter, opened, "a", {}, "", api_name="/vote")
    replayed = client.predict(voter, opened, "b", {}, "", api_name="/vote")
    assert first["created"] and not replayed["created"]
    assert (replayed["receipt"], replayed["verdict"]) == (first["receipt"], "a")
    refused("no such round", thief, opened, api_name="/go_on")
    refused("no such round", thief, opened, api_name="/find_round")


def test_a_comment_of_ten_megabytes_is_not_even_read(served: Served) -> None:
    import httpx

    before = sum(served.arena.stats().votes.values())
    answer = httpx.post(
        f"{served.url}/gradio_api/call/vote", json={"data": ["v", "r", "a", {}, "x" * 10_000_000]}
    )
    assert answer.status_code == 413 and "too large" in answer.text
    assert sum(served.arena.stats().votes.values()) == before


def test_routes_that_are_not_used_do_not_exist(served: Served) -> None:
    import httpx

    assert httpx.post(f"{served.url}/gradio_api/upload", files={"files": b"x"}).status_code == 404
    assert httpx.get(f"{served.url}/docs").status_code == 404
    big = httpx.post(f"{served.url}/gradio_api/call/vote", content=b"x" * 2_000_000)
    assert big.status_code == 413
    page = httpx.get(served.url)
    assert "frame-ancestors" in page.headers["content-security-policy"]


def test_a_vote_that_finds_the_queue_full_is_sent_again_and_says_so(
    visitor: Any, faults: Faults
) -> None:
    full = [True, True]

    def answer(route: Any) -> None:
        if full:
            full.pop()
            route.fulfill(status=503, body='{"detail": "Too many visitors are waiting."}')
        else:
            route.continue_()

    send(visitor)
    expect(visitor.locator("#vote_b")).to_be_visible()
    visitor.route("**/queue/join*", answer)
    visitor.click("#vote_b")
    expect(visitor.locator("#told")).to_contain_text("The server is busy")
    expect(visitor.locator(".reveal")).to_be_visible()
    assert not full
    faults.forgive("503")


def test_on_an_example_old_votes_of_thirty_people_are_told_and_no_younger_ones(
    visitor: Any, served: Served
) -> None:
    arena, example = served.arena, examples()[0]
    served.engine.pause, pause = 0.0, served.engine.pause
    for number in range(31):
        voter, consent = arena.new_voter(), arena.consent_text().version
        opened = arena.open_round(
            voter, example.before, example.text, consent=consent, example=example.title
        )
        list(arena.stream(voter, opened.round_id))
        arena.vote(voter, opened.round_id, "tie" if number % 3 else "both_bad")
    served.engine.pause = pause

    def told_on(chosen: Example) -> Any:
        visitor.locator(".example", has_text=chosen.title).click()
        expect(visitor.locator(".thread")).to_contain_text(chosen.text[:30])
        expect(visitor.locator(".tag, .reveal")).to_have_count(0)
        voted(visitor)
        return expect(visitor.locator(".reveal"))

    told_on(example).not_to_contain_text("earlier votes")
    with arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=25)))
    told_on(example).to_contain_text(re.compile(r"3\d earlier votes on this situation"))
    told_on(examples()[1]).not_to_contain_text("earlier votes")
