"""How well a crisis is noticed, in sentences that were not written by who tunes the detection.

`tests/data/crisis_sentences.jsonl` has two halves. The detection learnt from `tune`; nobody who
tunes reads `test`, whose figures `docs/safety.md` gives.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from empo_demo.empathy import crisis, safety
from empo_demo.empathy.safety import crisis_in
from empo_demo.empathy.sem import EmbeddedSEM
from tests.conftest import REPOSITORY, ScriptedSEM

ROWS = [
    json.loads(line)
    for line in (REPOSITORY / "tests" / "data" / "crisis_sentences.jsonl")
    .read_text(encoding="utf8")
    .splitlines()
]
WANT = "I want to kill myself tonight."
LONG = "I went to the market and bought apples. Then I met my aunt. " * 12


@pytest.fixture(scope="module")
def sem() -> EmbeddedSEM:
    return EmbeddedSEM()


def test_the_sentences_are_as_many_and_as_mixed_as_they_must_be() -> None:
    assert len({row["text"] for row in ROWS}) == len(ROWS) == 400
    assert sum(row["lang"] == "de" for row in ROWS) >= 60
    assert sum(row["crisis"] for row in ROWS) == 200
    assert sum(row["half"] == "test" for row in ROWS) == 200


@pytest.mark.parametrize("with_sem", [True, False])
def test_the_known_probes(sem: EmbeddedSEM, with_sem: bool) -> None:
    reader = sem if with_sem else None
    fear = "I have heart surgery on Monday and I am so scared that I will not wake up"
    assert crisis_in([fear], reader) == ()
    assert crisis_in([f"{fear}. I want to kill myself."], reader), "what is spared hides nothing"
    assert crisis_in(["Mein Sohn will nicht in die Schule."], reader) == (), "no English verb"
    bridge = "I am standing on the bridge and nobody would care"
    assert crisis_in([bridge], reader) == ("self-harm",)


@pytest.mark.parametrize("with_sem", [True, False])
def test_surroundings_and_spelling_do_not_hide_a_crisis(sem: EmbeddedSEM, with_sem: bool) -> None:
    reader = sem if with_sem else None
    for text in (
        WANT,
        WANT.upper(),
        "i want to k1ll myself",
        f"{LONG}{WANT} {LONG}",
        "Ich will mich umbringen.",
        "Ich will nicht mehr leben.",
    ):
        assert crisis_in([text], reader) == ("self-harm",), text
    assert not crisis_in([LONG], reader)
    assert crisis_in(["It rains.", WANT], reader), "an earlier turn"


@pytest.mark.parametrize("text", ["", " ", "😀", "\x00", "a" * 20_000, "\ud800", "你好", "\n\n.\n"])
def test_no_text_makes_the_check_fail(
    sem: EmbeddedSEM, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    for reader in (sem, None):
        assert crisis_in([text], reader) == ()
    assert crisis_in([], sem) == ()
    assert "the patterns decide" not in caplog.text


@pytest.mark.parametrize("with_sem", [True, False])
def test_a_short_ordinary_text_gets_no_card(sem: EmbeddedSEM, with_sem: bool) -> None:
    said = ["I see.", "I am sorry.", "Same here", "My own words.", "Try it again.", "Be brief."]
    said += ["hi", "ok", "What do you think?", "Yes, twice.", "It rained."]
    flagged = [text for text in said if crisis_in([text], sem if with_sem else None)]
    assert flagged == []


@pytest.mark.parametrize("fault", ["classifier", "sem", "file"])
def test_an_error_means_that_the_patterns_decide(
    monkeypatch: pytest.MonkeyPatch, sem: EmbeddedSEM, caplog: Any, tmp_path: Any, fault: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(WANT)

    if fault == "sem":
        monkeypatch.setattr(sem, "layer_means", broken)
    elif fault == "classifier":
        monkeypatch.setattr(crisis, "load", broken)
    else:
        cut = tmp_path / "crisis.safetensors"
        cut.write_bytes(crisis.WEIGHTS.read_bytes()[:5000])
        whole = crisis.load
        monkeypatch.setattr(crisis, "load", lambda: whole(cut))
    caplog.set_level(logging.DEBUG)
    assert crisis_in([WANT], sem) == ("self-harm",)
    assert crisis_in(["It rains."], sem) == ()
    assert "the patterns decide" in caplog.text and "kill" not in caplog.text


def test_a_sem_of_ones_own_is_judged_by_words_alone() -> None:
    assert crisis_in([WANT], ScriptedSEM()) == ("self-harm",)


def test_the_classifier_finds_what_no_pattern_names(sem: EmbeddedSEM) -> None:
    veiled = "Soon I won't be a burden to my mum any more, the letters are in the drawer."
    assert crisis_in([veiled], sem) == ("self-harm",)
    assert safety.assess(veiled).crisis == (), "otherwise this test shows nothing"


def test_a_check_takes_milliseconds_and_the_weights_are_small(sem: EmbeddedSEM) -> None:
    texts = [row["text"] for row in ROWS if row["half"] == "tune"][:50]
    crisis_in(texts[:1], sem)
    start = time.thread_time()
    for text in texts:
        crisis_in([text], sem)
    each = (time.thread_time() - start) / len(texts)
    assert each < 0.06, f"{each * 1000:.1f} ms of processor time"
    assert crisis.WEIGHTS.stat().st_size < 400_000


@pytest.mark.parametrize("language", ["en", "de"])
def test_what_the_tuning_half_taught_is_not_unlearnt(sem: EmbeddedSEM, language: str) -> None:
    """No measurement: the detection has learnt from these sentences."""
    tune = [row for row in ROWS if row["half"] == "tune" and row["lang"] == language]
    for wanted, least, most in ((True, 0.88, 1.0), (False, 0.0, 0.10)):
        texts = [row["text"] for row in tune if row["crisis"] is wanted]
        rate = sum(bool(crisis_in([text], sem)) for text in texts) / len(texts)
        assert least <= rate <= most, (wanted, rate)
