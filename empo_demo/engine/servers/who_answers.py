"""Whether a server answers for each model with that model's own weights.

Servers batch the requests of several models, and some confuse them there: vLLM's CPU build gives a
row without an adapter the adapter of the last slot. So each model is asked a few fixed prompts
alone, and again while all of them are answering. A reply in company that is nearer to another
model's reply alone than to its own comes from the wrong weights, and every vote on it is worthless.

Replies are compared by the log-probabilities of their first tokens where a server gives them, else
by their text. This module knows no HTTP: `Ask` is how a model is asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from empo_demo.dialogue import Message

PROMPTS: tuple[tuple[Message, ...], ...] = tuple(
    ({"role": "user", "content": text},)
    for text in (
        "I failed my driving test for the third time.",
        "My sister just had her first baby, and they are both well!",
        "Somebody stole my bike in front of the library.",
    )
)
FEW, MANY = 2, 16
"""The tokens of an answer with log-probabilities, and of one that is only text."""
_ALIKE = 0.05
"""Nats below which two models are not told apart: one model differs from itself by rounding."""
_FAR = 8.0
"""The largest difference of a token's log-probability that counts, in nats."""
_OTHER = 0.5
"""A model that has moved by this share of its distance to the nearest other one is another one."""


@dataclass(frozen=True)
class Token:
    """A chosen token, and the log-probabilities of the likeliest ones at its place, in nats."""

    text: str
    likely: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: tuple[Token, ...] = ()


Voice = Sequence[Answer]
"""The answers of one model to `PROMPTS`."""
Ask = Callable[[str, tuple[Message, ...], int], Answer]
"""Ask a model (its name on the server) a prompt, greedily, for so many tokens."""
Accompany = Callable[[Iterable[str]], AbstractContextManager[None]]
"""Keep the models of these names answering while the context is open."""


class Confused(Exception):
    """A model is not answered by its own weights.

    `model` was asked. `other` is the model whose weights have answered; None if no known one did.
    `in_company` says whether the model answers as itself while it is alone.
    """

    def __init__(self, model: str, other: str | None, *, in_company: bool) -> None:
        super().__init__(model, other)
        self.model, self.other, self.in_company = model, other, in_company


@dataclass
class Verdict:
    """What a check has found: the voices heard alone, and the pairs that could not be told apart.

    `by` is what was compared: log-probabilities or texts. `seconds` is the time that it took.
    """

    voices: dict[str, Voice]
    by: str
    seconds: float = 0.0
    alike: list[tuple[str, str]] = field(default_factory=list)

    def words(self, *, company: bool) -> str:
        """What was found, for the list of contenders and the page's technical notes."""
        if self.alike:
            return "some models could not be told apart"
        if len(self.voices) == 1:
            return f"the one model that it has, heard in {self.seconds:.1f} s"
        where = "alone and in company" if company else "alone"
        return f"each model as itself, {where} ({self.by}, {self.seconds:.1f} s)"


def check(
    models: Iterable[str],
    ask: Ask,
    accompany: Accompany,
    known: Mapping[str, Voice] | None = None,
    *,
    company: bool = True,
) -> Verdict:
    """Hear each of `models` alone and in company. Raises `Confused`.

    `known` are the voices that models had earlier or on other servers: a model that differs from
    them has other weights now. Without `company`, models are only heard alone.
    """
    started = time.perf_counter()
    models, tokens = list(dict.fromkeys(models)), FEW
    voices = _alone(models, ask, tokens)
    if not all(answer.tokens for voice in voices.values() for answer in voice):
        tokens = MANY
        voices = _alone(models, ask, tokens)
    for model in models:
        before = (known or {}).get(model)
        if before is not None:
            _compare_with_before(model, voices[model], before, known or {})
    verdict = Verdict(voices, "log-probabilities" if tokens == FEW else "texts")
    verdict.alike = [
        (one, other)
        for place, one in enumerate(models)
        for other in models[place + 1 :]
        if distance(voices[one], voices[other]) <= _limit(verdict.by)
    ]
    if company and len(models) > 1:
        with accompany(models):
            together = _together(models, ask, tokens)
        for model, heard in together.items():
            others = {
                other: distance(heard, voices[other])
                for other in models
                if distance(voices[model], voices[other]) > _limit(verdict.by)
            }
            nearest = min(others, key=others.__getitem__, default=None)
            if nearest is not None and others[nearest] < distance(heard, voices[model]):
                raise Confused(model, nearest, in_company=True)
    verdict.seconds = time.perf_counter() - started
    return verdict


def distance(one: Voice, other: Voice) -> float:
    """How far apart two voices are: 0 for the same, larger for more different ones.

    With log-probabilities, the mean over prompts and places of the mean absolute difference over
    the tokens that are likely for either, in nats; places count up to the first at which they chose
    different tokens, since after it they have read different texts. Otherwise the share of the
    texts that differs, 0 to 1.
    """
    pairs = list(zip(one, other, strict=True))
    if all(a.tokens and b.tokens for a, b in pairs):
        places = [gap for a, b in pairs for gap in _gaps(a.tokens, b.tokens)]
        return sum(places) / len(places)
    ratios = [SequenceMatcher(None, a.text, b.text, autojunk=False).ratio() for a, b in pairs]
    return 1.0 - sum(ratios) / len(ratios)


def _alone(models: Iterable[str], ask: Ask, tokens: int) -> dict[str, Voice]:
    return {model: _ask_all(model, ask, tokens) for model in models}


def _together(models: Sequence[str], ask: Ask, tokens: int) -> dict[str, Voice]:
    """The voices of all models, all prompts of all of them asked at once."""
    with ThreadPoolExecutor(len(models)) as threads:
        voices = threads.map(lambda model: _ask_all(model, ask, tokens), models)
        return dict(zip(models, voices, strict=True))


def _ask_all(model: str, ask: Ask, tokens: int) -> Voice:
    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        return list(threads.map(lambda prompt: ask(model, prompt, tokens), PROMPTS))


def _compare_with_before(
    model: str, voice: Voice, before: Voice, known: Mapping[str, Voice]
) -> None:
    """Raise `Confused` if a model is nearer to another's earlier voice, or far from its own."""
    moved = distance(voice, before)
    by = "log-probabilities" if all(a.tokens for a in (*voice, *before)) else "texts"
    others = {
        other: heard
        for other, heard in known.items()
        if other != model and distance(before, heard) > _limit(by)
    }
    nearest = min(others, key=lambda other: distance(voice, others[other]), default=None)
    if nearest is not None and distance(voice, others[nearest]) < moved:
        raise Confused(model, nearest, in_company=False)
    spread = min((distance(before, heard) for heard in others.values()), default=1.0)
    if moved > max(_OTHER * spread, _limit(by)):
        raise Confused(model, None, in_company=False)


def _limit(by: str) -> float:
    return _ALIKE if by == "log-probabilities" else 0.0


def _gaps(one: Sequence[Token], other: Sequence[Token]) -> Iterable[float]:
    for a, b in zip(one, other, strict=False):
        names = a.likely.keys() | b.likely.keys()
        low, lower = min(a.likely.values()), min(b.likely.values())
        gaps = (abs(a.likely.get(n, low) - b.likely.get(n, lower)) for n in names)
        yield sum(min(gap, _FAR) if math.isfinite(gap) else _FAR for gap in gaps) / len(names)
        if a.text != b.text:
            return
