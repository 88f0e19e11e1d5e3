"""The labels, their opposites and their groups are complete."""

from __future__ import annotations

from empo_demo.empathy.emotions import EMOTIONS, GROUP_OF, GROUPS, OPPOSITE


def test_there_are_32_emotions_in_alphabetical_order() -> None:
    assert len(EMOTIONS) == len(set(EMOTIONS)) == 32
    assert list(EMOTIONS) == sorted(EMOTIONS)


def test_every_emotion_has_an_opposite_in_another_group() -> None:
    assert set(OPPOSITE) == set(EMOTIONS)
    for emotion, opposite in OPPOSITE.items():
        assert opposite in EMOTIONS and opposite != emotion


def test_one_way_opposites_stay_one_way() -> None:
    assert OPPOSITE["guilty"] == "proud" and OPPOSITE["proud"] == "ashamed"
    assert OPPOSITE["prepared"] == "anxious" and OPPOSITE["anxious"] == "content"


def test_every_emotion_is_in_exactly_one_group() -> None:
    members = [label for labels in GROUPS.values() for label in labels]
    assert sorted(members) == list(EMOTIONS)
    assert all(label in GROUPS[GROUP_OF[label]] for label in EMOTIONS)
