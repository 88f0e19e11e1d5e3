"""The page says which pair answers, what the loading does, and why another pair takes its place."""

from __future__ import annotations

import logging

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import UNGUIDED, Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.loading import decide
from empo_demo.errors import Sentence
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.smollm2.obtain import sentence
from empo_demo.smollm2.package import SMOLLM2
from empo_demo.ui import lineup
from empo_demo.ui.page import load_models
from empo_demo.ui.tabs.about_tab import _made
from empo_demo.ui.texts import texts_of
from empo_demo.votes.store import Store
from tests.conftest import ScriptedEngine, ScriptedSEM

MEANT = Roster(
    "smollm2",
    tuple(
        Contender(name, str(SMOLLM2.folder), adapter, revision=f"smollm2-{name}")
        for name, adapter in (("base", None), ("aligned", "a"))
    ),
)
TINY = load_roster(load_settings(preset="tiny"))


@pytest.fixture
def waiting(store: Store) -> Arena:
    """An arena that is meant to serve SmolLM2, before anything is loaded."""
    settings = load_settings(preset="smollm2", database=str(store.database.url), device="cpu")
    return Arena(settings, MEANT, store, sem=ScriptedSEM())


def notes(arena: Arena) -> list[str]:
    return [lineup.note(arena, texts_of(name)) for name in ("en", "de")]


def test_what_the_loading_does_is_on_the_page_in_both_languages(waiting: Arena) -> None:
    assert waiting.models.status().message.startswith("The models are loading")
    waiting.models.begin(sentence("Downloading SmolLM2-135M-Instruct", 34_000_000, 93_000_000))
    english, german = notes(waiting)
    assert "Downloading SmolLM2-135M-Instruct: 34 of 93 MB. The recorded round" in english
    assert "SmolLM2-135M-Instruct wird geladen: 34 von 93 MB. Die aufgezeichnete" in german
    assert waiting.models.status().message == "Downloading SmolLM2-135M-Instruct: 34 of 93 MB."
    assert "SmolLM2" in lineup.badge(waiting, texts_of("en"))


def test_the_about_tab_says_what_the_weights_are_held_in(
    waiting: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was asked for: a part may stay in 16 bits, and a server quantises as it likes."""
    lexicon = load_lexicon(None)

    def about() -> str:
        return _made(waiting, lexicon, texts_of("en"))

    assert "smollm2" in about() and "quantisation" not in about(), "nothing is loaded yet"
    engine = ScriptedEngine()
    monkeypatch.setattr(engine, "describe", lambda: {"quantisation": "int8; experts in bf16"})
    waiting.models.attach(engine=engine)
    assert "quantisation int8; experts in bf16." in about()
    monkeypatch.setattr(engine, "describe", lambda: {"engine": "server http://x"})
    assert "quantisation" not in about()


def test_where_the_base_cannot_be_had_the_tiny_pair_answers_and_says_why(
    waiting: Arena, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[Roster] = []

    def load_engine(settings: object, roster: Roster) -> ScriptedEngine:
        loaded.append(roster)
        return ScriptedEngine()

    monkeypatch.setattr("empo_demo.engine.loading.load_engine", load_engine)
    monkeypatch.setattr("empo_demo.empathy.plugins.load_sem", lambda settings: ScriptedSEM())
    with caplog.at_level(logging.WARNING):
        load_models(waiting, waiting.settings, decide(waiting.settings, MEANT))
    assert waiting.models.status().state == "ready" and waiting.models.status().pair == "tiny"
    assert [one.name for one in loaded] == ["tiny"] == [waiting.roster.name]
    said = "The tiny pair answers instead of SmolLM2. HF_HUB_OFFLINE is set, so nothing is"
    assert said in caplog.text
    english, german = notes(waiting)
    assert "The tiny pair answers here instead of SmolLM2. HF_HUB_OFFLINE is set" in english
    assert "A 17M model, for comparison, no counsellor." in english
    assert "HF_HUB_OFFLINE ist gesetzt, also wird nichts heruntergeladen." in german
    assert "Tiny 17M, five variants" in lineup.badge(waiting, texts_of("en"))


def test_a_round_that_was_opened_for_the_pair_that_did_not_come_moves_to_the_one_that_did(
    waiting: Arena,
) -> None:
    voter = waiting.new_voter()
    opened = waiting.open_round(voter, Dialogue(), "I lost my keys.")
    waiting.change_pair(TINY, Sentence("The package index cannot be reached."))
    waiting.models.attach(engine=ScriptedEngine())
    (*_, last) = waiting.stream(voter, opened.round_id)
    assert set(last.ends) == {"a", "b"}
    (stored,) = waiting.store.rounds_of(voter)
    assert stored.roster == "tiny" and stored.system_prompt == TINY.system_prompt
    receipt = waiting.vote(voter, opened.round_id, "a")
    here = {(one.id, one.revision) for one in TINY.contenders}
    for side in (receipt.reveal.a, receipt.reveal.b):
        assert (side.contender.removesuffix(UNGUIDED), side.revision) in here


def test_the_note_says_who_meets_and_what_they_are(arena: Arena, waiting: Arena) -> None:
    assert "Two models; which one is A is drawn anew each turn. Language models" in notes(arena)[0]
    assert "A 135M model, for comparison, no counsellor." in notes(waiting)[0]
    waiting.change_pair(TINY, Sentence("No network."))
    english, german = notes(waiting)
    assert "Two models, drawn anew each turn. A 17M model" in english
    assert "Zwei Modelle, in jeder Runde neu gezogen. Ein Modell mit 17M" in german


FIVE = Roster("smollm2", tuple(Contender(name, str(SMOLLM2.folder)) for name in "abcde"))


@pytest.mark.parametrize(
    ("roster", "engine", "server", "says"),
    [
        (FIVE, "local", "", "SmolLM2 135M, five variants, on this computer"),
        (TINY, "local", "", "Tiny 17M, five variants, on this computer"),
        (TINY, "local", "0.0.0.0", "Tiny 17M, five variants, on the arena’s computer"),
        (
            Roster("r", (Contender("a", "org/Qwen2.5-0.5B-Instruct"), Contender("b", "org/own"))),
            "http://127.0.0.1:9/v1",
            "",
            "two models, on a server",
        ),
        (
            Roster("r", tuple(Contender(n, "HuggingFaceH4/zephyr-7b-sft") for n in "ab")),
            "http://127.0.0.1:9/v1",
            "",
            "zephyr 7B, two variants, on a server",
        ),
        (
            Roster("r", tuple(Contender(n, "", predictions=n) for n in "abc")),
            "predictions.csv",
            "",
            "three models, recorded replies",
        ),
    ],
)
def test_the_header_says_what_runs_and_where(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    roster: Roster,
    engine: str,
    server: str,
    says: str,
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", server or "127.0.0.1")
    settings = load_settings(database=str(store.database.url))
    served = Arena(settings.model_copy(update={"engine": engine}), roster, store)
    assert lineup.runs(served, texts_of("en")) == says


def test_a_space_is_not_the_visitors_computer(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEM", "spaces")
    assert lineup.runs(arena, texts_of("en")).endswith(", on this Space")


def test_about_says_who_takes_part_and_that_two_of_them_meet(arena: Arena) -> None:
    told = lineup.taking_part(TINY, texts_of("en"))
    assert told.count("<li>") == 5 and "the fine-tuned model" in told
    assert "Two of these five meet in each turn, drawn anew" in told
    assert "Most often they are the base model and the aligned model." in told
    assert "Both meet in each turn" in lineup.taking_part(arena.roster, texts_of("en"))
