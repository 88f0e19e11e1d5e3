"""What the Arena tab's handlers change on the page, state by state, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from sqlalchemy import update

from empo_demo.arena.arena import Arena
from empo_demo.contenders.load_roster import recorded_roster
from empo_demo.contenders.roster import Roster
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.language import why_unread
from empo_demo.engine.predictions import RecordedEngine
from empo_demo.engine.text.marks import ALL_THOUGHT
from empo_demo.errors import StorageError
from empo_demo.exchange.export import export_file
from empo_demo.settings import load_settings
from empo_demo.ui.arena_tab import components as arena_tab
from empo_demo.ui.arena_tab.handlers import Handlers, _mark
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.drawing.highlights import GENERAL
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.examples import examples
from empo_demo.ui.tabs import data_tab
from empo_demo.ui.texts import texts_of
from empo_demo.ui.visitors import Session
from empo_demo.votes.models import Round
from empo_demo.votes.store import Store
from tests.conftest import ScriptedSEM, ephemeral_rounds

TEXT = "I failed my driving test again."
PHONE = "Call me at +44 20 7946 0958, please."
NASTY = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) \u202eevil $$x$$"


def handlers_of(arena: Arena) -> Handlers:
    with gr.Blocks():
        return arena_tab.build(arena, gr.BrowserState({}), gr.HTML(), Labels())


@pytest.fixture
def handlers(arena: Arena) -> Handlers:
    return handlers_of(arena)


def visitor(handlers: Handlers) -> dict[str, Any]:
    arena = handlers.arena
    return Session(voter=arena.new_voter(), consent=arena.consent_text().version).store()


def merged(changes: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
    """What the page shows after all of `changes`."""
    page: dict[Any, Any] = {}
    for change in changes:
        page |= change
    return page


def shown(value: Any) -> str:
    return json.dumps(value, default=str)


def test_a_round_ends_with_the_votes_and_a_vote_with_the_reveal(handlers: Handlers) -> None:
    p = handlers.parts
    page = merged(handlers.send(TEXT, visitor(handlers)))
    assert page[p.votes]["visible"] and "data-waiting" in page[p.steps]
    assert page[p.send]["interactive"] is False
    assert "Vote first" in page[p.box]["placeholder"], "a box that takes nothing says why"
    assert page[p.reveal] == "" and "Read both" in page[p.message]
    voted = handlers.vote("a", page[p.session])
    assert "You chose A" in voted[p.reveal] and "A was " in voted[p.reveal]
    assert "You have helped with 1 pair." in voted[p.reveal], "why one comes back"
    assert "both models" not in voted[p.reveal].lower()
    assert "Go on with this dialogue" in voted[p.go_on] and "drawn anew" in voted[p.go_on]
    assert "data-waiting" not in voted[p.steps] and not voted[p.votes]["visible"]
    assert "do you say" in voted[p.box]["placeholder"] and "now" not in voted[p.steps]


def test_a_scale_that_nobody_touched_is_no_answer(handlers: Handlers) -> None:
    """It begins empty, is empty again in the next round, and is not stored."""
    p = handlers.parts
    assert all(one.value is None and 50 not in dict(one.choices).values() for one in p.ratings)
    page = merged(handlers.send(TEXT, visitor(handlers)))
    page |= handlers.vote("b", page[p.session])
    session = Session.read(page[p.session])
    nothing = handlers.rate(page[p.session], "", None, None, None, None)
    assert "Nothing is chosen yet" in nothing[p.message]
    assert "stored" in handlers.rate(page[p.session], "", None, 80, None, 0)[p.message]
    (vote,) = handlers.arena.my_votes(session.voter)
    assert vote["ratings"] == {"b_emotion": 80, "b_continue": 0}
    page |= merged(handlers.send("And another thing.", page[p.session]))
    assert all(page[one] is None for one in p.ratings)


@pytest.mark.parametrize(("language", "told"), [("en", "its first 3"), ("de", "ersten 3 Wechsel")])
def test_a_dialogue_that_is_too_long_is_told_while_they_write_and_afterwards(
    handlers: Handlers, engine: Any, language: str, told: str
) -> None:
    p, engine.dropped = handlers.parts, 3
    stored = {**visitor(handlers), "language": language}
    messages = [c[p.message] for c in handlers.send(TEXT, stored) if p.message in c]
    assert len([m for m in messages if told in m]) >= 2 and told in messages[-1]
    session = handlers.arena.latest(stored["voter"])
    assert session is not None
    voted = handlers.vote("a", {**stored, "round": session.round_id})
    assert told in voted[p.message]


def test_nothing_is_sent_before_consent_is_given_or_refused(
    handlers: Handlers, engine: Any
) -> None:
    p = handlers.parts
    asked = merged(handlers.send(TEXT, {}))
    assert asked[p.consent]["visible"] and p.box not in asked, "the text stays in the box"
    assert engine.requests == [] and handlers.arena.stats().rounds == {}
    agreed = merged(handlers.agree(TEXT, {}))
    assert not agreed[p.consent]["visible"] and agreed[p.votes]["visible"]
    assert agreed[p.session]["consent"] == handlers.arena.consent_text().version
    handlers.vote("a", agreed[p.session])
    assert handlers.arena.stats().exportable == 1


def test_who_agreed_to_an_earlier_text_is_asked_again_once(handlers: Handlers) -> None:
    p, stored = handlers.parts, {**visitor(handlers), "consent": "0" * 64}
    asked = merged(handlers.send(TEXT, stored))
    assert asked[p.consent]["visible"] and p.box not in asked
    agreed = merged(handlers.agree(TEXT, stored))
    assert not agreed[p.consent]["visible"] and agreed[p.votes]["visible"]
    (record,) = handlers.arena.my_data(stored["voter"])
    assert record["round"]["consent"] == handlers.arena.consent_text().version
    refused = {**visitor(handlers), "consent": "refused"}
    assert merged(handlers.send(TEXT, refused))[p.votes]["visible"], "a refusal stays one"


def test_an_example_plays_without_consent_and_is_not_kept(handlers: Handlers) -> None:
    p = handlers.parts
    page = merged(handlers.choose(4, {}))
    assert page[p.votes]["visible"] and examples()[4].text.split()[-1] in page[p.thread]
    voted = handlers.vote("b", page[p.session])
    assert "was not kept" in voted[p.reveal] and voted[p.keep]["visible"]
    assert handlers.arena.stats().exportable == 0
    assert ephemeral_rounds(handlers.arena.store) == 1
    assert handlers.arena.end_visit(page[p.session]["voter"]) == 1
    following = merged(handlers.next(page[p.session]))
    assert following[p.session]["example"] == examples()[5].title


def test_an_example_that_is_none_is_refused(handlers: Handlers, engine: Any) -> None:
    for place in (99, -1, "x", None, True):
        page = merged(handlers.choose(place, {}))
        assert "no such example" in page[handlers.parts.message]
    assert engine.requests == []


def test_the_first_screen_is_a_round_to_rehearse_that_counts_nowhere(
    handlers: Handlers, engine: Any
) -> None:
    p = handlers.parts
    page = handlers.restore({})
    assert page[p.votes]["visible"] and "recorded" in page[p.steps]
    before = shown([v for k, v in page.items() if k is not p.badge]).lower()
    assert "aligned" not in before and "base model" not in before
    side = "a" if rehearsal().reveal.a.contender == "aligned" else "b"
    voted = handlers.vote(side, page[p.session])
    assert f"You chose {side.upper()}" in voted[p.reveal]
    assert "the aligned model" in voted[getattr(p, f"pane_{side}")]
    assert handlers.arena.stats().rounds == {} and engine.requests == []


def test_the_page_speaks_the_language_of_the_browser_and_the_one_chosen(
    handlers: Handlers,
) -> None:
    p = handlers.parts
    german = handlers.restore({}, "de-AT,de;q=0.9,en;q=0.8")
    assert german[p.session]["language"] == "de" and german[p.send]["value"] == "Senden"
    reading = rehearsal().view.reading
    assert reading is not None
    felt = texts_of("de")(f"emotion.{reading.emotions[0][0]}")
    assert felt in german[p.heard] and german[p.send]["interactive"]
    english = handlers.switch(german[p.session])
    assert english[p.session]["language"] == "en" and english[p.send]["value"] == "Send"
    again = handlers.restore(english[p.session], "de")
    assert again[p.session]["language"] == "en", "what was chosen goes before the browser"
    assert handlers.restore({"language": "xx"}, "fr")[p.session]["language"] == "en"


def test_personal_data_is_pointed_out_before_it_is_sent(handlers: Handlers) -> None:
    p = handlers.parts
    first = merged(handlers.send(PHONE, visitor(handlers)))
    assert "phone number" in first[p.warning] and "Nothing was sent yet" in first[p.warning]
    assert p.notices not in first, "it is said once, at the box that holds it"
    assert p.box not in first, "the text stays in the box"
    assert handlers.arena.stats().rounds == {}
    changed = merged(handlers.send(f"{PHONE} Thanks.", first[p.session]))
    assert "Nothing was sent yet" in changed[p.warning], "another text is warned of anew"
    again = merged(handlers.send(PHONE, first[p.session]))
    assert again[p.votes]["visible"]
    assert PHONE not in shown(first[p.session]), "the browser keeps a mark, not the text"


CRISIS = "I want to kill myself."


def alone(page: dict[Any, Any], p: Any) -> bool:
    """Whether the page shows the card of help, and nothing of a round or a question beside it."""
    markup = (
        p.steps,
        p.thread,
        p.message,
        p.warning,
        p.go_on,
        p.reveal,
        p.card,
        p.heard,
        p.plots,
        p.examples,
    )
    hidden = (p.pair, p.votes, p.next, p.keep, p.share, p.consent, p.rate, p.stop, p.retry)
    return (
        page[p.notices].count("<section") == 1
        and "notice crisis" in page[p.notices]
        and all(page[part] == "" for part in markup)
        and all(page[part]["visible"] is False for part in hidden)
        and page[p.send]["interactive"]
        and "value" not in page[p.box]
    )


@pytest.mark.parametrize("text", [CRISIS, f"{CRISIS} {PHONE}"])
@pytest.mark.parametrize("consent", [True, False])
def test_help_is_alone_on_the_page_and_comes_before_every_question(
    handlers: Handlers, engine: Any, text: str, consent: bool
) -> None:
    p = handlers.parts
    session = visitor(handlers)
    if not consent:
        session["consent"] = ""
    page = handlers.restore(session) | merged(handlers.send(text, session))
    assert alone(page, p)
    assert engine.requests == [] and handlers.arena.stats().rounds == {}
    assert "kill" not in shown(page[p.session]), "the browser keeps nothing of it"


def test_help_takes_the_place_of_an_earlier_round_and_the_dialogue_can_go_on(
    handlers: Handlers,
) -> None:
    p = handlers.parts
    page = merged(handlers.send(TEXT, visitor(handlers)))
    page |= handlers.vote("a", page[p.session])
    page |= merged(handlers.send(CRISIS, page[p.session]))
    assert alone(page, p)
    page |= merged(handlers.send("I was not serious, it was a bad day.", page[p.session]))
    assert page[p.votes]["visible"] and page[p.notices] == "" and page[p.examples]
    said = re.sub("<[^>]*>", "", page[p.thread])
    assert "failed my driving test" in said and "kill" not in said


def test_an_imported_reading_with_an_unknown_emotion_breaks_no_page(handlers: Handlers) -> None:
    voter = handlers.arena.new_voter()
    opened = handlers.arena.open_round(voter, Dialogue(), TEXT)
    list(handlers.arena.stream(voter, opened.round_id))
    handlers.arena.vote(voter, opened.round_id, "a")
    odd = [{"label": label, "probability": 0.3} for label in ("saudade", "<b>", "awe")]
    with handlers.arena.store.database.write() as session:
        session.execute(update(Round).values(reading={"emotions": odd, "causes": []}))
    stored = Session(voter=voter, round=opened.round_id).store()
    changed = handlers.restore(stored)
    assert "did not answer" in changed[handlers.parts.heard]
    assert "<article" in changed[handlers.parts.pane_a]


def test_a_reload_of_a_crisis_that_an_earlier_version_answered_shows_help_alone(
    handlers: Handlers,
) -> None:
    p = handlers.parts
    session = merged(handlers.send(TEXT, visitor(handlers)))[p.session]
    with handlers.arena.store.database.write() as database:
        database.execute(update(Round).values(crisis=True))
    page = handlers.restore(session)
    assert alone(page, p) and page[p.session]["round"] == ""
    for changes in (handlers.vote("a", session), merged(handlers.retry(session))):
        assert alone(page | changes, p)


def test_markup_of_users_and_models_is_text_in_every_part(handlers: Handlers, engine: Any) -> None:
    engine.enqueue(NASTY, NASTY)
    frames = list(handlers.send(NASTY, visitor(handlers)))
    frames.append(handlers.vote("b", merged(frames)[handlers.parts.session]))
    for frame in frames:
        markup = [v for part, v in frame.items() if isinstance(part, gr.HTML)]
        text = shown(markup)
        assert "<img" not in text and 'href=\\"javascript' not in text
    assert "&lt;img" in shown([v for part, v in frames[-1].items() if isinstance(part, gr.HTML)])


def test_an_error_is_one_line_and_leaves_the_text_where_it_is(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise StorageError("The database is not there. Try again in a minute.")

    monkeypatch.setattr(handlers.arena, "open_round", gone)
    page = merged(handlers.send(TEXT, visitor(handlers)))
    assert set(page) == {handlers.parts.message}
    assert "The database is not there" in page[handlers.parts.message]


def test_retry_is_offered_once_after_a_reply_that_was_all_thought(
    handlers: Handlers, engine: Any
) -> None:
    p = handlers.parts
    for _ in range(2):
        engine.enqueue("Fine.", RuntimeError(ALL_THOUGHT))
    page = merged(handlers.send(TEXT, visitor(handlers)))
    assert page[p.retry]["visible"] and "try it again" in page[p.message]
    page = merged(handlers.retry(page[p.session]))
    assert not page[p.retry]["visible"] and "Start a new dialogue" in page[p.message]


def test_what_was_broken_off_is_compared_with_nothing(handlers: Handlers, engine: Any) -> None:
    p = handlers.parts
    page = merged(handlers.send(TEXT, visitor(handlers)))
    page |= handlers.vote("b", page[p.session])
    page |= merged(handlers.send("It rained.", page[p.session]))
    assert 'class="shares"' in page[p.plots] and "side-a" in page[p.plots]
    engine.enqueue("Fine, well.", RuntimeError("It broke off."))
    page |= merged(handlers.retry(page[p.session]))
    assert "Nothing was counted" in page[p.message]
    assert 'class="shares"' not in page[p.plots] and "side-a" not in page[p.plots]


def test_a_fault_of_ours_tells_no_more_than_that(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret of base-weights")

    monkeypatch.setattr(handlers.arena, "vote", fault)
    page = handlers.vote("a", {**visitor(handlers), "round": "0" * 32})
    assert GENERAL in page[handlers.parts.message] and "secret" not in shown(list(page.values()))


def test_a_session_that_the_browser_made_up_is_a_new_visit(handlers: Handlers) -> None:
    for stored in (None, 7, {"voter": ["x"]}, {"draft": [{"role": "king"}]}, {"round": "x" * 999}):
        page = handlers.restore(stored)
        assert "recorded" in page[handlers.parts.steps], "the first screen"


def test_a_dialogue_that_a_stranger_made_up_costs_no_reading(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restoring has no limit of its own: forty turns would keep the emotion model busy."""
    asked: list[int] = []

    class Counting(ScriptedSEM):
        def read(self, turns: Any) -> Any:
            asked.append(len(turns))
            return super().read(turns)

    handlers.arena.models.attach(sem=Counting())
    real = handlers.arena.models.feelings
    models = handlers.arena.models
    monkeypatch.setattr(models, "feelings", lambda t: (asked.append(len(t)), real(t))[1])
    roles = ("user", "assistant")
    draft = [{"role": roles[i % 2], "content": f"word{i}"} for i in range(40)]
    page = handlers.restore({"draft": draft})
    assert "word39" in page[handlers.parts.thread] and asked == []


def test_the_levels_of_a_round_are_read_once(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    known = [*rehearsal().levels.values()]
    models = handlers.arena.models
    monkeypatch.setattr(models, "epitome", lambda pairs: (asked.append(1), known)[1])
    session = merged(handlers.send(TEXT, visitor(handlers)))[handlers.parts.session]
    pages = [handlers.vote("a", session), handlers.restore(session), handlers.switch(session)]
    assert all('class="level' in page[handlers.parts.pane_a] for page in pages)
    assert asked == [1]


def test_a_turn_that_cannot_be_read_gets_no_dots(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unread(ScriptedSEM):
        def read(self, turns: Any) -> Any:
            return replace(super().read(turns), unread=why_unread(turns))

    handlers.arena.models.attach(sem=Unread())
    asked: list[int] = []
    monkeypatch.setattr(handlers.arena.models, "epitome", lambda pairs: asked.append(1) or [])
    read = ScriptedSEM.read
    monkeypatch.setattr(
        ScriptedSEM, "read", lambda sem, turns: replace(read(sem, turns), unread=why_unread(turns))
    )
    page = merged(handlers.send("Mein Hund ist gestern gestorben.", visitor(handlers)))
    voted = handlers.vote("a", page[handlers.parts.session])
    assert "not English, so not read" in voted[handlers.parts.heard]
    assert 'class="level' not in voted[handlers.parts.pane_a] and asked == []


def test_waiting_rounds_are_told(handlers: Handlers, engine: Any) -> None:
    engine.waiting = 2
    first = next(iter(handlers.send(TEXT, visitor(handlers))))
    assert "2 rounds are ahead of yours" in first[handlers.parts.message]


def test_my_votes_show_what_was_said(handlers: Handlers) -> None:
    page = merged(handlers.send(TEXT, visitor(handlers)))
    session = page[handlers.parts.session]
    handlers.vote("tie", session)
    assert TEXT in data_tab.own(handlers.arena, session)


@pytest.fixture
def recording(tmp_path: Path) -> Arena:
    """An arena over two recorded dialogues of our own."""
    contexts = [["My cat ran away."], ["I won!", "What?", "The race."]]
    rows = [
        {"conv_id": str(i), "context": said, "reference": f"Human {i}.", "response": f"Model {i}."}
        for i, said in enumerate(contexts)
    ]
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    roster: Roster = recorded_roster(file)
    settings = load_settings(database=f"sqlite:///{tmp_path}/votes.sqlite3", engine=str(file))
    return Arena(
        settings,
        replace(roster, system_prompt=""),
        Store.open(settings.database),
        engine=RecordedEngine(roster.contenders, characters_per_second=0),
        sem=ScriptedSEM(),
    )


def test_recorded_replies_are_voted_on_blind_and_exported(recording: Arena, tmp_path: Path) -> None:
    handlers = handlers_of(recording)
    p = handlers.parts
    start = handlers.restore(visitor(handlers))
    assert start[p.pick]["choices"] == ["1. My cat ran away.", "2. The race."]
    frames = list(handlers.recorded(start[p.session], place=1))
    before = re.sub("<[^>]*>", "", shown([v for frame in frames for v in frame.values()]))
    before = before.lower().replace("human 1.", "").replace("people\\u2019s replies", "")
    before = before.replace("earlier replies", "")
    assert "human" not in before and "replies" not in before
    page = merged(frames)
    said = re.sub("<[^>]*>", "", page[p.thread])
    assert "I won!" in said and "The race." in said
    replies = [re.sub("<[^>]*>", "", page[pane]) for pane in (p.pane_a, p.pane_b)]
    assert {"Human 1." in reply for reply in replies} == {True, False}
    voted = handlers.vote("a", page[p.session])
    assert "human" in voted[p.reveal].lower() and "next dialogue" in voted[p.go_on]
    export_file(recording.settings.database, "trl", tmp_path / "pairs.jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {row["chosen_contender"], row["rejected_contender"]} == {"human", "replies"}
    assert [turn["content"] for turn in row["prompt"]] == ["I won!", "What?", "The race."]


def test_a_place_that_the_list_has_not_draws_a_dialogue(recording: Arena) -> None:
    handlers = handlers_of(recording)
    for place in (99, -1, "x", None):
        assert merged(handlers.recorded(visitor(handlers), place=place))[handlers.parts.votes][
            "visible"
        ]


def test_everything_stored_of_me_is_shown_and_one_vote_can_be_withdrawn(
    handlers: Handlers,
) -> None:
    p, arena = handlers.parts, handlers.arena
    first = merged(handlers.send(NASTY, {**visitor(handlers), "warned": _mark(NASTY)}))
    session = first[p.session]
    handlers.vote("a", session)
    second = merged(handlers.send("It rained, too.", session))[p.session]
    listed = data_tab.own(arena, second)
    assert "<img" not in listed and "&lt;img" in listed and "It rained, too." in listed
    unvoted = arena.my_data(session["voter"])[1]
    assert unvoted["vote"] is None and "contender" not in json.dumps(unvoted)
    stranger = {**session, "voter": arena.new_voter()}
    mine, erased = gr.HTML(render=False), gr.HTML(render=False)
    refused = data_tab.withdraw(arena, stranger, session["round"], mine, erased)
    assert "no such round" in refused[erased] and len(arena.my_data(session["voter"])) == 2
    left = data_tab.withdraw(arena, session, session["round"], mine, erased)
    assert left[mine].count("<article") == 1 and "It rained, too." in left[mine]
    assert "keep its words" in left[erased], "the later round's dialogue holds the earlier turn"
    assert arena.store.erasure.tombstones() == {session["round"]}
    assert arena.stats().votes == {}
