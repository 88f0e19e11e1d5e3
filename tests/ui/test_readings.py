"""Each text of the page is read once, and explained once it is finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling, Push, told
from empo_demo.empathy.reading import Reading
from empo_demo.ui.drawing import readings
from empo_demo.ui.drawing.readings import Readings


class Arena:
    """Answers with a push of 1 where it explains; keeps what it was asked."""

    def __init__(self, source: str = "sem") -> None:
        self.models = self
        self.source, self.asked = source, []  # type: str, list[tuple[tuple[str, ...], bool]]

    def feelings(self, texts: Sequence[str], *, explained: bool = False) -> list[Feeling]:
        self.asked.append((tuple(texts), explained))
        words = (Push(0, 1, "x", float(explained)),)
        return [Feeling(0.5, 0.1, 0.0, self.source, words) for _ in texts]


def push(found: Feeling) -> float:
    return found.words[0].by


def test_a_text_is_read_once_and_explained_once() -> None:
    arena = Arena()
    page = Readings(cast("Any", arena), {})
    assert [push(f) for f in page.feelings(["x", "x", "y"])] == [0, 0, 0]
    assert page.feelings(["x"], explained=True) == page.feelings(["x"])
    assert [push(f) for f in page.feelings(["x", "y"])] == [1, 0]
    page.feelings(["x"], explained=True)
    assert arena.asked == [(("x", "y"), False), (("x",), True)]


def test_what_was_recorded_needs_no_sem() -> None:
    arena = Arena()
    known = Feeling(0.1, None, None, "sem")
    page = Readings(cast("Any", arena), {"x": known})
    assert page.feelings(["x"]) == page.feelings(["x"], explained=True) == [known]
    assert arena.asked == []


def test_a_word_lists_answer_is_not_kept() -> None:
    arena = Arena("vader")
    page = Readings(cast("Any", arena), {})
    page.feelings(["x"], explained=True)
    arena.source = "sem"
    assert page.feelings(["x"])[0].source == "sem"
    assert len(arena.asked) == 2


def test_many_texts_push_the_oldest_out_and_are_all_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readings, "REMEMBERED", 3)
    arena = Arena()
    page = Readings(cast("Any", arena), {})
    page.feelings(["old"])
    assert len(page.feelings(["old", "b", "c", "d", "e"])) == 5
    page.feelings(["old"])
    assert arena.asked[-1] == (("old",), False)


def test_no_text_is_remembered_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "MOST_SECONDS", 0.2)
    known = Feeling(0.1, None, None, "sem")
    page = Readings(cast("Any", Arena()), {"recorded": known})
    page.feelings(["a visitor's"], explained=True)
    assert "a visitor's" in page._felt
    time.sleep(0.6)
    assert page._felt == page._explained == {"recorded": known}
    page.feelings(["another"])
    time.sleep(0.6)
    assert page._felt == {"recorded": known}, "and again"


def test_a_text_that_is_forgotten_while_others_are_read_is_answered() -> None:
    """2,000 texts are remembered: other visitors' may push one out in the meantime."""
    known, new = (Feeling(value, None, None, "sem") for value in (0.1, 0.2))

    class Busy:
        def __init__(self) -> None:
            self.models = self

        def feelings(self, texts: Any, **_: Any) -> list[Feeling]:
            page._felt.clear()
            return [new] * len(texts)

    page = Readings(cast("Any", Busy()), {"known": known})
    assert page.feelings(["known", "new"]) == [known, new]


def test_a_turn_that_cannot_be_read_has_no_valence_and_neither_have_its_replies() -> None:
    class Model(Arena):
        def status(self) -> Any:
            return SimpleNamespace(state="ready")

        def analyze(self, dialogue: Dialogue) -> Reading:
            share = tuple((label, 1 / 32) for label in EMOTIONS)
            first = dialogue.turns[-1].content == "asdf"
            return Reading(share, (), unread="letters" if first else None)

    page = Readings(cast("Any", Model()), {})
    said = Dialogue().plus("user", "asdf")
    assert page.turns(said) == [None]
    assert page.feel({"a": "Oh!", "b": "What?"}, said) == {}
    later = said.plus("assistant", "What?").plus("user", "My dog died.")
    first, answer, second = page.turns(later)
    assert first is answer is None and second is not None
    person = Feeling(0.5, 0.1, 0.0, "sem")
    felt = page.feel({"a": "Oh!", "b": ""}, later)
    assert set(felt) == {"a"} and felt["a"].valence == told(person, person).valence
