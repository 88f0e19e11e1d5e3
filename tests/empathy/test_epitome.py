"""EPITOME levels of a response, by the embedded SEM."""

from __future__ import annotations

import pytest

from empo_demo.empathy.reading import Epitome, Level
from empo_demo.empathy.sem import EmbeddedSEM

CONTEXT = "I lost my job yesterday and I do not know how to pay the rent."


@pytest.fixture(scope="module")
def sem() -> EmbeddedSEM:
    return EmbeddedSEM()


def test_the_level_is_the_most_probable_one() -> None:
    level = Level.of([0.2, 0.1, 0.7])
    assert level.as_json() == {"level": 2, "probabilities": [0.2, 0.1, 0.7]}


def test_rows_are_er_ex_ip() -> None:
    grade = Epitome.from_rows([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert (grade.er.level, grade.ex.level, grade.ip.level) == (0, 1, 2)


def test_probabilities_of_each_mechanism_sum_to_one(sem: EmbeddedSEM) -> None:
    (grade,) = sem.epitome([(CONTEXT, "I am so sorry to hear that.")])
    for level in (grade.er, grade.ex, grade.ip):
        assert sum(level.probabilities) == pytest.approx(1)


def test_a_question_explores_more_than_a_statement(sem: EmbeddedSEM) -> None:
    asking, telling = sem.epitome(
        [(CONTEXT, "What happened at work? Do you want to talk about it?"), (CONTEXT, "Try yoga.")]
    )
    assert asking.ex.probabilities[0] < telling.ex.probabilities[0]


def test_warmth_is_told_from_its_absence(sem: EmbeddedSEM) -> None:
    warm, cold = sem.epitome(
        [(CONTEXT, "I am so sorry, I really feel for you."), (CONTEXT, "Banks open at nine.")]
    )
    assert warm.er.probabilities[0] < cold.er.probabilities[0]


def test_case_does_not_matter(sem: EmbeddedSEM) -> None:
    upper, lower = sem.epitome([("I AM SAD", "OH NO! WHY?"), ("i am sad", "oh no! why?")])
    assert upper.ex.probabilities == pytest.approx(lower.ex.probabilities, abs=1e-3)


def test_the_question_at_the_end_of_a_long_reply_is_heard(sem: EmbeddedSEM) -> None:
    long = "I once lost a job too and it took me a while to find my feet again. " * 5
    told, asked = sem.epitome([(CONTEXT, long), (CONTEXT, long + "What happened at work?")])
    assert asked.ex.probabilities[0] < 0.5 < told.ex.probabilities[0]


def test_only_the_first_128_pieces_of_a_response_count(sem: EmbeddedSEM) -> None:
    long = "word " * 128
    one, two = sem.epitome([(CONTEXT, long), (CONTEXT, long + "What happened? I am so sorry.")])
    assert one.er.probabilities == pytest.approx(two.er.probabilities, abs=1e-3)
