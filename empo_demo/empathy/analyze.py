"""`python -m empo_demo analyze`: one answer per JSON line, in order, batched for speed.

A line is ``{"text"}``, ``{"turns": [{"role", "content"}, …]}``, ``{"tokens": […]}`` or
``{"context", "response"}`` (the context is a text, or turns whose last user turn counts). For a
text and for turns the answer is a whole reading (`Reading.as_json`: emotions, causes, valence,
certainty); for tokens, emotions and a weight per token; for a pair, EPITOME's levels. Each answer
says whether the reading ``abstains``, and if so why (``unread``): then a text has no causes and no
valence, and the numbers that remain (probabilities, weights, levels) mean nothing. For a line that
cannot be used the answer is ``{"error": one line}``, and the other lines are still answered.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from empo_demo.dialogue import Turn, clean_text
from empo_demo.empathy.feeling import lexicon_feeling
from empo_demo.empathy.plugins import read_all
from empo_demo.empathy.reading import Reading
from empo_demo.empathy.sem import SEM
from empo_demo.errors import ArenaError, InvalidInput

CHUNK = 256
"""How many lines are read together. A larger number would not be faster."""


@dataclass(frozen=True, slots=True)
class _Dialogue:
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class _Words:
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    context: str
    response: str


_Job = _Dialogue | _Words | _Pair


def analyze_records(sem: SEM, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One answer per line of JSON, in order: a reading, EPITOME levels, or ``{"error"}``."""
    remaining = iter(lines)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        parsed = [_parse(line) for line in chunk]
        jobs = [job for job in parsed if not isinstance(job, str)]
        answers = iter(_safe_answers(sem, jobs))
        for job in parsed:
            yield {"error": job} if isinstance(job, str) else next(answers)


def _parse(line: str) -> _Job | str:
    """The job of a line, or a sentence on what is wrong with it."""
    try:
        return _job(json.loads(line))
    except InvalidInput as error:
        return str(error)
    except (ValueError, RecursionError):
        return "The line is not JSON; one JSON object per line was expected."


def _job(record: Any) -> _Job:
    if not isinstance(record, Mapping):
        raise InvalidInput('The line is not a JSON object; {"text": …} or its kin was expected.')
    if "response" in record or "context" in record:
        return _Pair(_context(record.get("context")), _text(record.get("response"), "response"))
    if "tokens" in record:
        return _Words(_tokens(record["tokens"]))
    if "turns" in record:
        return _Dialogue(_turns(record["turns"]))
    if "text" in record:
        return _Dialogue((Turn("user", _text(record["text"], "text")),))
    raise InvalidInput("The object has none of text, turns, tokens, or context with response.")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name!r} must be a text.")
    return clean_text(value)


def _context(value: Any) -> str:
    if isinstance(value, str):
        return clean_text(value)
    return [turn for turn in _turns(value, "context") if turn.role == "user"][-1].content


def _turns(value: Any, name: str = "turns") -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{name!r} must be a list of {{role, content}}, with at least one.")
    turns = []
    for position, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
            raise InvalidInput(
                f"Turn {position} of {name!r} must be an object with the texts role and content."
            )
        turns.append(Turn(turn.get("role"), turn["content"]))  # type: ignore[arg-type]
    if all(turn.role != "user" for turn in turns):
        raise InvalidInput(f"{name!r} holds no user turn; only what a user wrote is read.")
    return tuple(turns)


def _tokens(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
        raise InvalidInput("'tokens' must be a list of texts.")
    clean_text(" ".join(value))
    return tuple(value)


def _safe_answers(sem: SEM, jobs: Sequence[_Job]) -> list[dict[str, Any]]:
    """Like `_answers`, but a job that fails loses only its own answer."""
    try:
        return _answers(sem, jobs)
    except ArenaError:
        return [_alone(sem, job) for job in jobs]


def _alone(sem: SEM, job: _Job) -> dict[str, Any]:
    try:
        return _answers(sem, [job])[0]
    except ArenaError as error:
        return {"error": str(error)}


def _answers(sem: SEM, jobs: Sequence[_Job]) -> list[dict[str, Any]]:
    """The answers of jobs of several kinds. Each kind is one batch for the model."""
    by_place: dict[int, dict[str, Any]] = {}
    kinds: list[tuple[type, Callable[[SEM, list[Any]], list[dict[str, Any]]]]] = [
        (_Dialogue, _read_dialogues),
        (_Words, _read_words),
        (_Pair, _grade_pairs),
    ]
    for kind, answer in kinds:
        places = [place for place, job in enumerate(jobs) if isinstance(job, kind)]
        if places:
            answers = answer(sem, [jobs[place] for place in places])
            by_place.update(zip(places, answers, strict=True))
    return [by_place[place] for place in range(len(jobs))]


def _read_dialogues(sem: SEM, jobs: list[_Dialogue]) -> list[dict[str, Any]]:
    readings = read_all(sem, [job.turns for job in jobs])
    return [
        (
            reading
            if reading.feeling or reading.abstains
            else replace(reading, feeling=lexicon_feeling(_said(job)))
        ).as_json()
        for job, reading in zip(jobs, readings, strict=True)
    ]


def _said(job: _Dialogue) -> str:
    """The last user turn, which the reading is about."""
    return next(turn.content for turn in reversed(job.turns) if turn.role == "user")


def _read_words(sem: SEM, jobs: list[_Words]) -> list[dict[str, Any]]:
    """Emotions, and a weight per token. A SEM without `read_words` reads the joined text."""
    readings = read_all(sem, [[Turn("user", " ".join(job.tokens))] for job in jobs])
    read_words = getattr(sem, "read_words", None)
    if read_words is not None:
        rows = read_words([job.tokens for job in jobs])
    else:
        rows = [(r.emotions, _align(job.tokens, r)) for job, r in zip(jobs, readings, strict=True)]
    return [
        {
            "emotions": _ranked(emotions),
            "cause_weights": weights,
            **_abstention(reading),
        }
        for (emotions, weights), reading in zip(rows, readings, strict=True)
    ]


def _ranked(emotions: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": p} for label, p in emotions]


def _align(tokens: Sequence[str], reading: Reading) -> list[float]:
    """The weight of the causes that overlap each token; the tokens were joined by spaces."""
    joined = " ".join(tokens)
    shift = len(joined) - len(joined.lstrip())
    weights, start = [], -shift
    for token in tokens:
        end = start + len(token)
        touching = [c.weight for c in reading.causes if c.start < end and c.end > start]
        weights.append(max(touching, default=0.0))
        start = end + 1
    return weights


def _grade_pairs(sem: SEM, jobs: list[_Pair]) -> list[dict[str, Any]]:
    epitome = getattr(sem, "epitome", None)
    if epitome is None:
        raise InvalidInput(f"The SEM {sem.name} does not grade replies; use EMPO_SEM=embedded.")
    grades = epitome([(job.context, job.response) for job in jobs])
    contexts = read_all(sem, [[Turn("user", job.context)] for job in jobs])
    return [
        {"epitome": grade.as_json(), **_abstention(context)}
        for grade, context in zip(grades, contexts, strict=True)
    ]


def _abstention(reading: Reading) -> dict[str, Any]:
    return {"unread": reading.certainty.why, "abstains": reading.abstains}
