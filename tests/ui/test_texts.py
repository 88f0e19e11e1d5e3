"""The words in every language: none is missing, and none stays English by mistake."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import empo_demo
from empo_demo.arena.arena import Arena
from empo_demo.board.ballots import Ballot
from empo_demo.board.board import board
from empo_demo.board.sentences import length_sentence, side_sentence
from empo_demo.board.standing import Effect
from empo_demo.empathy import safety
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.engine import lease
from empo_demo.engine.protocol import not_loaded
from empo_demo.engine.text.marks import ALL_THOUGHT, UNMARKED
from empo_demo.errors import (
    SERVER_ERROR,
    SIDE_FAILED,
    SIDE_SILENT,
    InvalidInput,
    NotAllowed,
    NotFound,
    Sentence,
)
from empo_demo.evaluation.results import RESULTS, read
from empo_demo.ui.tabs import results_tab
from empo_demo.ui.texts import FOLDER, LANGUAGES, preferred, texts_of
from empo_demo.ui.visitors import Session
from empo_demo.votes import consent
from empo_demo.votes.limits import VOTER_LIMIT, _spell
from empo_demo.votes.models import Round
from empo_demo.votes.reasons import REASONS, TOO_YOUNG
from tests.ui.test_handlers import handlers_of, merged

GERMAN = texts_of("de")
ROOMS = (
    "dialogue.py",
    "arena/*.py",
    "votes/limits.py",
    "votes/store.py",
    "ui/**/*.py",
    "engine/lockstep/*.py",
    "engine/predictions.py",
)
"""The modules whose errors a visitor of the page can meet."""
ERRORS = ("InvalidInput", "NotAllowed", "NotFound", "EngineError", "StorageError", "ArenaError")
ELSEWHERE = ("cli.py", "endpoints.py")
"""These talk to the terminal and to programs."""


def words(language: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf8")))


def gaps(text: str) -> set[str]:
    return set(re.findall(r"{(\w*)", text))


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_all_languages_say_the_same_things_with_the_same_gaps(language: str) -> None:
    english, own = words("en"), words(language)
    for sentence, translation in own.pop("sentences").items():
        assert gaps(sentence) == gaps(translation), sentence
    assert not set(english) - set(own)
    extra = set(own) - set(english)
    assert all(key.startswith(("verdict.", "contender.")) for key in extra)
    for key, text in english.items():
        assert gaps(own[key]) == gaps(text), key
    assert all(own[f"emotion.{label}"] for label in EMOTIONS)


def test_the_first_known_language_of_the_browser_is_taken() -> None:
    assert preferred("fr-FR,de-CH;q=0.8,en;q=0.5") == "de"
    assert preferred("") == preferred("*") == preferred("fr") == "en"


def raised() -> list[tuple[str, str]]:
    """Every message that the rooms of the page raise: a sentence's key, or a text with 7 in it."""
    root = Path(empo_demo.__file__).parent
    found = []
    for pattern in ROOMS:
        for path in sorted(root.glob(pattern)):
            if path.name in ELSEWHERE:
                continue
            name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
            module = importlib.import_module(name)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    kind = getattr(node.exc.func, "id", "")
                    texts = said(node.exc.args[0], module) if node.exc.args else []
                    if kind in ERRORS:
                        place = f"{path.name}:{node.lineno}"
                        found += [(place, text) for text in texts if text.strip("7 ")]
    return found


def said(node: ast.AST, module: Any) -> list[str]:
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.Name):
        constant = getattr(module, node.id, None)
        return [constant] if isinstance(constant, str) else []
    if isinstance(node, ast.IfExp):
        return said(node.body, module) + said(node.orelse, module)
    if isinstance(node, ast.JoinedStr):
        return ["".join(v.value if isinstance(v, ast.Constant) else "7" for v in node.values)]
    return []


def test_every_error_that_a_visitor_can_meet_is_translated() -> None:
    messages = raised()
    assert len(messages) > 25, "the search finds the messages"
    left = [f"{place}: {text}" for place, text in messages if GERMAN.own(text) == text]
    assert left == []


def test_what_a_lent_gpu_and_a_server_say_is_translated() -> None:
    said = [*lease._SAID.values(), str(lease._sentence(ValueError("?")))]
    assert [text for text in said if GERMAN.own(text) == text] == []
    refused = not_loaded("x", ["base", "aligned"]).public
    assert GERMAN.own(refused) == "Das Modell 'x' ist nicht geladen; geladen sind: base, aligned."


def test_every_notice_and_reason_is_translated() -> None:
    notices = [safety.english_notice(), safety.crisis_notice(""), safety.crisis_notice("de")]
    notices.append(
        safety.personal_notice(
            span.kind for span in safety.assess("Mail a@b.de or call 030 1234567.").personal
        )
    )
    for notice in notices:
        for text in (notice.title, notice.text):
            assert GERMAN.own(text) != text, text
    assert "eine E-Mail-Adresse und eine Telefonnummer" in GERMAN.own(notices[-1].text)
    assert "112 in Deutschland" in GERMAN.own(notices[2].text)
    reasons = (*REASONS, TOO_YOUNG, ALL_THOUGHT, UNMARKED)
    assert all(GERMAN.own(reason) != reason for reason in reasons)


@pytest.mark.parametrize("votes", [1, 2, 60])
def test_every_sentence_of_the_board_is_translated(votes: int) -> None:
    ballots = [
        Ballot(str(n), f"v{n % 40}", "base", "aligned", "abb"[n % 3], 5 + n % 7, 9 + n % 5)
        if n % 9
        else Ballot(str(n), f"v{n % 40}", "base", "aligned", "tie", 5, 9)
        for n in range(1, votes + 1)
    ]
    found = board(ballots, samples=50)
    left = [line for line in found.sentences if GERMAN.own(line) == line]
    assert left == []
    effect = Effect(0.9, (0.1, 1.2)) if votes == 1 else None
    for sentence in (side_sentence(effect), length_sentence(effect)):
        assert GERMAN.own(sentence) != sentence and "left" not in GERMAN.own(sentence)


def test_one_vote_by_one_person_is_said_in_the_singular() -> None:
    one = board([Ballot("1", "v", "base", "aligned", "a")], samples=10).sentences[-1]
    assert one.startswith("1 vote by 1 person;")
    assert GERMAN.own(one).startswith("1 Stimme von 1 Person;")
    for language in LANGUAGES:
        say = texts_of(language)
        assert say.count("board.votes", 1) in ("1 vote", "1 Stimme")
        assert say.count("board.votes", 1200) in ("1,200 votes", "1.200 Stimmen")


def test_figures_are_written_as_the_language_writes_them() -> None:
    assert GERMAN.number("2,768 · 0.24 · 58%") == "2.768 · 0,24 · 58\u00a0%"
    assert texts_of("en").number("2,768 · 0.24 · 58%") == "2,768 · 0.24 · 58%"
    tied = GERMAN.own(
        Sentence(
            "{share} of the votes ended in a tie (95 %: {span}).",
            share="21%",
            span=Sentence("{low} to {high}", low="15%", high="28%"),
        )
    )
    assert "21\u00a0%" in tied and "15\u00a0% bis 28\u00a0%" in tied
    said = results_tab.sentences(read(RESULTS), GERMAN)
    assert "Antworten jedes Modells" in said[-1] and "\u00a0%" in said[0]
    assert any(re.search(r"\d,\d", line) for line in said)
    assert GERMAN.own("0.2.0") == "0.2.0", "a version is no figure"


def test_what_a_visitor_wrote_is_never_taken_for_a_sentence_of_ours() -> None:
    for text in ("", "{0}", "The weather { is } bad", "x" * 5000):
        assert GERMAN.own(text) == text


def test_consent_is_given_to_the_text_that_was_shown(arena: Arena) -> None:
    english, german = arena.consent_text(), arena.consent_text("de")
    assert english.version == consent.VERSION != german.version
    assert len(german.text.splitlines()) == len(english.text.splitlines())
    assert arena.consent_text("fr") == english
    handlers = handlers_of(arena)
    stored = Session(voter=arena.new_voter(), language="de").store()
    page = merged(handlers.agree("I failed my driving test again.", stored))
    session = page[handlers.parts.session]
    assert session["consent"] == german.version
    handlers.vote("a", session)
    assert arena.stats().exportable == 1
    with arena.store.database.read() as read:
        assert read.query(Round).one().consent == german.version


def test_the_limit_of_rounds_is_told_in_german() -> None:
    error = NotAllowed(VOTER_LIMIT, n=30, what="rounds", minutes=10, wait=_spell(230))
    assert str(error) == (
        "You have opened 30 rounds in 10 minutes, which is the limit. "
        "Your text is not lost: go on in 4 minutes."
    )
    assert GERMAN.own(error.public) == (
        "Sie haben in 10 Minuten 30 Runden begonnen, das ist die Grenze. "
        "Ihr Text ist nicht verloren: In 4 Minuten geht es weiter."
    )


def test_another_language_looks_a_sentence_up_and_never_reads_english() -> None:
    """Also what a visitor's words make of a sentence stays what they are."""
    key = "There is no contender {name}; there are: {known}."
    odd = NotFound(key, name="a; there are: b", known="c")
    assert GERMAN.own(odd.public) == "Das Modell a; there are: b gibt es hier nicht; es gibt: c."
    assert GERMAN.own(str(odd)) == str(odd), "a text without its key is not taken apart"
    braces = InvalidInput("There is no verdict {name}; there are: {known}.", name="{n}", known="a")
    assert str(braces) == "There is no verdict {n}; there are: a."
    assert GERMAN.own(braces.public) == "Das Urteil {n} gibt es nicht; es gibt: a."


@pytest.mark.parametrize("error", ["The reply was stopped.", Sentence(SERVER_ERROR, status=503)])
def test_what_was_stored_in_english_is_shown_in_german(error: str) -> None:
    failed = Sentence(SIDE_FAILED, side="A", error=error)
    stored = Sentence.stored(str(failed))
    assert stored == failed and stored.key == SIDE_FAILED
    assert GERMAN.own(stored).startswith("Seite A") and GERMAN.own(error) in GERMAN.own(stored)
    assert GERMAN.own(error) != error


def test_a_sentence_outlives_a_copy_and_another_process() -> None:
    sentence = Sentence(SIDE_SILENT, side="B")
    for copied in (copy.deepcopy(sentence), pickle.loads(pickle.dumps(sentence))):
        assert (copied, copied.key, copied.values) == (sentence, sentence.key, sentence.values)
    assert Sentence("{what}.", what=("one", "two", "three")) == "one, two and three."
