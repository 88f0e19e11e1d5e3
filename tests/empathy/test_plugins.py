"""SEMs by name: third-party packages, good and bad."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling
from empo_demo.empathy.plugins import MOST_HANGING, GuardedSEM, load_plugin
from empo_demo.empathy.reading import Cause, Reading, checked_json
from empo_demo.errors import SEMFailure, SettingsError
from empo_demo.settings import load_settings

TURNS = [Turn("user", "My dog died this morning.")]
GOOD = Reading(tuple((e, 1 / 32) for e in EMOTIONS), (Cause(3, 6, "dog", 0.5),), "x", 1.0)


def guarded(answer: Callable[[Sequence[Turn]], Any], limit: float = 2.0) -> GuardedSEM:
    return GuardedSEM(SimpleNamespace(name="other", revision="7", read=answer), limit)  # type: ignore[arg-type]


def test_a_sound_reading_passes_sorted_and_named() -> None:
    odds = {e: (0.4 if e == "sad" else 0.6 / 31) for e in EMOTIONS}
    two = (Cause(7, 11, "died", 1.0), Cause(3, 6, "dog", 0.5))
    raw = replace(GOOD, emotions=tuple(odds.items()), causes=two)
    read = guarded(lambda _: raw).read(TURNS)
    assert read.emotions[0] == ("sad", 0.4)
    assert [cause.text for cause in read.causes] == ["dog", "died"]
    assert read.sem == "other@7"


def test_a_reading_within_the_tolerance_is_kept_and_can_be_restored() -> None:
    raw = with_emotions(afraid=-0.0005, angry=2 / 32)
    found = guarded(lambda _: replace(raw, emotions=list(map(list, raw.emotions)))).read(TURNS)  # type: ignore[arg-type]
    stored = json.loads(json.dumps(found.stored()))
    assert checked_json(stored) == stored
    assert Reading.from_json(stored) == found


def with_emotions(**changes: float) -> Reading:
    return replace(GOOD, emotions=tuple({**dict(GOOD.emotions), **changes}.items()))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "NoneType instead of a Reading"),
        ({"emotions": []}, "dict instead of a Reading"),
        (with_emotions(gloomy=0.0), "none of the 32: gloomy"),
        (replace(GOOD, emotions=GOOD.emotions[:31]), "31 emotions"),
        (replace(GOOD, emotions=(*GOOD.emotions, GOOD.emotions[0])), "33 emotions"),
        (with_emotions(sad=0.9), "sum to 1.87"),
        (with_emotions(sad=-0.5), "outside 0 to 1"),
        (with_emotions(sad=float("nan")), "outside 0 to 1"),
        (replace(GOOD, emotions=(("sad", "much"),)), ""),
        (replace(GOOD, emotions=None), "malformed"),
        (replace(GOOD, causes=(Cause(0, 99, "My", 1.0),)), "does not stand in the last"),
        (replace(GOOD, causes=(Cause(0, 2, "Mine", 1.0),)), "does not stand in the last"),
        (replace(GOOD, causes=(Cause(3, 6, "dog", 7.0),)), "a weight outside"),
        (replace(GOOD, causes=(Cause(3, 6, "dog", np.float32(0.5)),)), "malformed"),  # type: ignore[arg-type]
        (replace(GOOD, milliseconds=float("nan")), "malformed"),
        (replace(GOOD, feeling=Feeling(0.1, None, None, "")), "malformed"),
        (replace(GOOD, causes=(Cause(3, 6, "dog", 0.5),) * 1001), "malformed"),
    ],
)
def test_nonsense_is_a_failure_that_says_what_was_wrong(answer: Any, said: str) -> None:
    with pytest.raises(SEMFailure) as caught:
        guarded(lambda _: answer).read(TURNS)
    assert said in str(caught.value) and "'other'" in str(caught.value)


def test_a_sem_that_raises_is_a_failure_in_one_line() -> None:
    def read(_: Sequence[Turn]) -> Reading:
        raise RuntimeError("CUDA\nout of memory")

    with pytest.raises(SEMFailure, match="raised RuntimeError: CUDA out of memory"):
        guarded(read).read(TURNS)


def test_a_sem_that_hangs_is_given_up_after_the_limit_and_not_asked_for_ever() -> None:
    release, asked = threading.Event(), []

    def read(_: Sequence[Turn]) -> Reading:
        asked.append(1)
        release.wait(20)
        return GOOD

    sem = guarded(read, limit=0.05)
    started = time.perf_counter()
    for _ in range(MOST_HANGING + 3):
        with pytest.raises(SEMFailure):
            sem.read(TURNS)
    assert time.perf_counter() - started < 5
    assert len(asked) == MOST_HANGING
    release.set()
    time.sleep(0.1)
    assert guarded(lambda _: GOOD).read(TURNS).emotions == GOOD.emotions
    assert sem.read(TURNS).emotions == GOOD.emotions


def test_read_many_answers_once_for_each() -> None:
    sem = SimpleNamespace(
        name="o", revision="1", read=lambda _: GOOD, read_many=lambda many: [GOOD] * len(many)
    )
    assert len(GuardedSEM(sem).read_many([TURNS, TURNS])) == 2  # type: ignore[arg-type]
    sem.read_many = lambda many: [GOOD]
    with pytest.raises(SEMFailure, match="once for each"):
        GuardedSEM(sem).read_many([TURNS, TURNS])  # type: ignore[arg-type]


PACKAGE = """
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading

class Keyword:
    name, revision = "keyword", "1.2"
    def __init__(self, word):
        self.word = word
    def read(self, turns):
        text = turns[-1].content
        top = "lonely" if self.word in text else "content"
        at = max(text.find(self.word), 0)
        odds = {e: (0.69 if e == top else 0.01) for e in EMOTIONS}
        cause = Cause(at, at + 4, text[at:at + 4], 1.0)
        return Reading(tuple(odds.items()), (cause,), "", 0.0)

def make(settings, argument):
    return Keyword(argument or "miss")

def broken(settings, argument):
    raise OSError("weights are missing")

class Wrong(Keyword):
    def read(self, turns):
        return Reading((("blue", 1.0),), (), "", 0.0)

def wrong(settings, argument):
    return Wrong("x")

def empty(settings, argument):
    return object()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed third-party distribution with entry points."""
    (tmp_path / "keyword_sem.py").write_text(PACKAGE)
    info = tmp_path / "keyword_sem-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: keyword-sem\nVersion: 1.2\n")
    names = ["make", "broken", "wrong", "empty"]
    points = "".join(f"{name} = keyword_sem:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[empo_demo.sem]\n{points}gone = no_such_module:x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "keyword_sem", raising=False)


@pytest.mark.usefixtures("package")
def test_a_third_party_sem_is_chosen_by_name_and_argument() -> None:
    sem = load_plugin(load_settings(sem="make"))
    read = sem.read([Turn("user", "I miss him")])
    assert (read.emotions[0][0], read.sem) == ("lonely", "keyword@1.2")
    other = load_plugin(load_settings(sem="make:rain"))
    assert other.read([Turn("user", "I miss him")]).emotions[0][0] == "content"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("maker", "it may hold broken, embedded, empty, gone, make, wrong"),
        ("broken", "cannot be loaded: OSError: weights are missing"),
        ("gone", "plugin cannot be imported: ModuleNotFoundError"),
        ("wrong", "none of the 32: blue"),
        ("empty", "is not a SEM: it has no name"),
        ("embedded:./nowhere", "The emotion model in nowhere cannot be loaded"),
    ],
)
def test_a_sem_that_is_no_use_is_one_line_at_start(name: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_plugin(load_settings(sem=name))
    message = str(caught.value)
    assert said in message and "EMPO_SEM" in message and "\n" not in message
