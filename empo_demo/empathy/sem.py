"""The small empathetic model (SEM): which emotion a turn carries, and which words caused it.

A SEM is anything with `read`; the embedded one lives in `assets/sem`. A reading is about the last
user turn in its context, and its cause words are places in that turn.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from empo_demo.dialogue import Turn
from empo_demo.empathy.certainty import Certainty, certainty
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling, Push
from empo_demo.empathy.words import is_content, spans
from empo_demo.errors import InvalidInput
from empo_demo.processor import fast_bfloat16
from empo_demo.settings import ASSETS

if TYPE_CHECKING:
    import numpy as np

    from empo_demo.empathy.encoder import Text
    from empo_demo.empathy.epitome import Epitome

MARKED = 0.5
"""A word is marked where a person would mark it with at least this probability."""
SHORT = 25
"""Words of a turn that counts as short."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class Cause:
    """A word of the last user turn, `text` = content[start:end].

    `weight` is the probability that a person would mark it as what caused the emotion.
    """

    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Reading:
    """All 32 (label, probability), most probable first, and the cause words in text order.

    `feeling` is how good the last user turn feels; `likely` are the labels, likeliest first, that
    hold the right one in 90 % of cases (a conformal set), empty where the SEM knows none.
    """

    emotions: tuple[tuple[str, float], ...]
    causes: tuple[Cause, ...]
    sem: str
    milliseconds: float
    feeling: Feeling | None = None
    likely: tuple[str, ...] = ()

    @property
    def valence(self) -> float | None:
        """How good the last user turn feels, in [-1, 1]; None where nothing read it."""
        return None if self.feeling is None else self.feeling.valence

    @property
    def certainty(self) -> Certainty:
        return certainty(self.emotions)

    def as_json(self) -> dict[str, Any]:
        sure = self.certainty
        return {
            "emotions": [{"label": label, "probability": p} for label, p in self.emotions],
            "causes": [
                {"start": c.start, "end": c.end, "text": c.text, "weight": c.weight}
                for c in self.causes
            ],
            **(self.feeling.as_json() if self.feeling else {}),
            "likely": list(self.likely),
            "certainty": sure.words,
            "abstains": sure.abstains,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """What `as_json` gave (with `sem` and `milliseconds` where they were stored beside it)."""
        return cls(
            tuple((str(e["label"]), float(e["probability"])) for e in data["emotions"]),
            tuple(Cause(**c) for c in data["causes"]),
            str(data.get("sem", "")),
            float(data.get("milliseconds", 0.0)),
            Feeling.from_json(data),
            tuple(str(label) for label in data.get("likely", ())),
        )


class _Row(NamedTuple):
    """The heads' answers to one text: weights and pushes are per piece."""

    emotions: np.ndarray
    causes: list[float]
    valence: float
    arousal: float
    pushes: list[float]


@runtime_checkable
class SEM(Protocol):
    """What a plugin of the group `empo_demo.sem` must offer."""

    name: str
    revision: str

    def read(self, turns: Sequence[Turn]) -> Reading:
        """The reading of the last user turn of `turns`."""
        ...


class EmbeddedSEM:
    """The SEM of `assets/sem`: one encoder on the CPU. Safe for threads."""

    name = "embedded"

    def __init__(self, folder: Path | None = None) -> None:
        from empo_demo.empathy.encoder import load

        folder = folder or ASSETS / "sem"
        self._net, self.texts, self._meta = load(folder)
        if fast_bfloat16():
            self._net.encoder.bfloat16()
            self._net.grader.bfloat16()
        self.revision = _revision(folder)
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return f"{self.name}@{self.revision}"

    def read(self, turns: Sequence[Turn]) -> Reading:
        return self.read_many([turns])[0]

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        """One reading per dialogue; one forward pass each, batched by length."""
        started = time.perf_counter()
        contents = [_upto_user(turns) for turns in dialogues]
        texts = [self.texts.turns(turns) for turns in contents]
        rows = self._pass(texts)
        elapsed = (time.perf_counter() - started) * 1000 / max(1, len(contents))
        return [
            Reading(
                _ranked(row.emotions),
                self._causes(turns, text, row.causes),
                self.label,
                elapsed,
                self._feeling(turns, text, row),
                self._likely(row.emotions),
            )
            for turns, text, row in zip(contents, texts, rows, strict=True)
        ]

    def feelings(self, texts: Sequence[str]) -> list[Feeling]:
        """The valence of each text, alone; an empty one is neutral."""
        inputs = [self.texts.turns([text]) for text in texts]
        return [
            self._feeling([text], tokens, row)
            for text, tokens, row in zip(texts, inputs, self._pass(inputs), strict=True)
        ]

    def read_words(
        self, sentences: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[tuple[str, float], ...], list[float]]]:
        """For each list of ready tokens: ranked emotions, and a weight in [0, 1] per token."""
        texts = [self.texts.words(tokens) for tokens in sentences]
        return [
            (_ranked(row.emotions), _per_token(tokens, text, row.causes))
            for tokens, text, row in zip(
                sentences, texts, self._pass(texts, words=True), strict=True
            )
        ]

    def emotions(self, dialogues: Sequence[Sequence[str]]) -> np.ndarray:
        """(dialogues, 32) probabilities in the order of `EMOTIONS`, 64-bit, rows sum to 1."""
        import numpy as np

        rows = self._pass([self.texts.turns(turns) for turns in dialogues])
        return np.stack([row.emotions for row in rows]) if rows else np.zeros((0, len(EMOTIONS)))

    def causes(self, texts: Sequence[str]) -> list[tuple[Cause, ...]]:
        """The cause words of each text, in its order; never empty where it has a content word."""
        inputs = [self.texts.turns([text]) for text in texts]
        return [
            self._causes([text], tokens, row.causes)
            for text, tokens, row in zip(texts, inputs, self._pass(inputs), strict=True)
        ]

    def cause_weights(self, tokens: Sequence[str]) -> list[float]:
        """One weight in [0, 1] per token; tokens past the longest input get 0."""
        return self.read_words([tokens])[0][1]

    def _causes(
        self, turns: Sequence[str], tokens: Text, weights: Sequence[float]
    ) -> tuple[Cause, ...]:
        scored = _by_word(turns[-1], len(turns), tokens, weights)
        return _choose(turns[-1], scored)

    def _feeling(self, turns: Sequence[str], tokens: Text, row: _Row) -> Feeling:
        text = turns[-1]
        if len(turns) not in tokens.segments:
            return Feeling(0.0, None, None, "sem")
        words = _by_word(text, len(turns), tokens, row.pushes, sum)
        pushes = tuple(Push(s, e, text[s:e], by) for s, e, by in words)
        valence = min(1.0, max(-1.0, row.valence))
        base, slope = self._meta.get("spread", (0.0, 0.0))
        arousal = min(1.0, max(-1.0, row.arousal))
        return Feeling(valence, base + slope * abs(valence), arousal, "sem", pushes)

    def _likely(self, row: np.ndarray) -> tuple[str, ...]:
        """The conformal set of 90 %: all labels at least so probable, and always the first."""
        ranked = _ranked(row)
        return tuple(
            e for i, (e, p) in enumerate(ranked) if p >= self._meta.get("likely", 1.0) or not i
        )

    def _pass(self, texts: Sequence[Text], *, words: bool = False) -> list[_Row]:
        """What all heads that read one text say, from one forward pass.

        The segments of `words` are its words, not its turns: all of them are the last turn.
        """
        import torch

        rows: list[Any] = [None] * len(texts)
        temperature = float(self._meta["temperature"])
        for part, ids, mask, segments in self._batches(texts):
            hidden = self._net.hidden(ids, mask)
            segments = (segments > 0).long() if words else segments
            logits = self._net.emotions(hidden, mask, segments).double() / temperature
            emotions = torch.softmax(logits, -1).numpy()
            weights = self._net.causes(hidden).sigmoid().tolist()
            affects = self._net.affects(hidden, segments).tolist()
            pushes = self._net.pushes(hidden).tolist()
            for row, i in enumerate(part):
                count = len(texts[i].ids)
                valence, arousal = affects[row]
                rows[i] = _Row(
                    emotions[row], weights[row][:count], valence, arousal, pushes[row][:count]
                )
        return rows

    def epitome(self, pairs: Sequence[tuple[str, str]]) -> list[Epitome]:
        """The levels of each (context, response)."""
        from empo_demo.empathy.epitome import Epitome

        found: list[Epitome | None] = [None] * len(pairs)
        inputs = [self.texts.pair(context, response) for context, response in pairs]
        for part, ids, mask, segments in self._batches(inputs):
            shared = self._net.shared(ids, mask)
            logits = self._net.levels(shared, mask, segments)[0].double()
            for row, i in enumerate(part):
                found[i] = Epitome.from_rows(logits[row].softmax(-1).tolist())
        return cast("list[Epitome]", found)

    def token_embeddings(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The last hidden states of each text, (tokens, dim), special tokens left out."""
        import numpy as np

        found = [np.zeros((0, 0), dtype=np.float32)] * len(texts)
        inputs = [self.texts.turns([text]) for text in texts]
        for part, ids, mask, segments in self._batches(inputs):
            hidden = self._net.hidden(ids, mask)
            for row, i in enumerate(part):
                found[i] = hidden[row, segments[row] > 0].numpy()
        return found

    def _batches(self, texts: Sequence[Text]) -> Any:
        """(indices, ids, mask, segments) of texts of similar length, without gradients."""
        import torch

        from empo_demo.empathy.encoder import collate

        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            with self._lock, torch.inference_mode():
                yield part, *collate([texts[i] for i in part])


def _revision(folder: Path) -> str:
    """Twelve hex digits of the hash of everything that decides a reading."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        if path.name != "figures.json":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _upto_user(turns: Sequence[Turn]) -> list[str]:
    """The texts up to and with the last user turn."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        raise InvalidInput("There is no user's turn to read; give a text that a person wrote.")
    return [turn.content for turn in turns[: last + 1]]


def _ranked(row: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = sorted(range(len(EMOTIONS)), key=lambda i: -row[i])
    return tuple((EMOTIONS[i], float(row[i])) for i in order)


def _by_word(
    text: str,
    turn: int,
    tokens: Text,
    values: Sequence[float],
    join: Callable[[Sequence[float]], float] = max,
) -> list[tuple[int, int, float]]:
    """(start, end, value) of each word of turn number `turn`: `join` of its pieces' values."""
    words = spans(text)
    pieces: list[list[float]] = [[] for _ in words]
    position = 0
    for (start, end), segment, value in zip(tokens.offsets, tokens.segments, values, strict=True):
        if segment != turn:
            continue
        while position < len(words) and words[position][1] <= start:
            position += 1
        if position < len(words) and words[position][0] < end:
            pieces[position].append(value)
    joined = [float(join(own)) if own else 0.0 for own in pieces]
    return [(start, end, value) for (start, end), value in zip(words, joined, strict=True)]


def _per_token(tokens: Sequence[str], text: Text, weights: Sequence[float]) -> list[float]:
    """The highest weight of each token's pieces; 0 for tokens past the longest input.

    A function word is a cause only where nothing else is: its weight is far below the rest.
    """
    found = [0.0] * len(tokens)
    for segment, weight in zip(text.segments, weights, strict=True):
        if segment:
            share = 1.0 if is_content(tokens[segment - 1]) else 0.01
            found[segment - 1] = max(found[segment - 1], share * weight)
    return found


def _choose(text: str, words: Sequence[tuple[int, int, float]]) -> tuple[Cause, ...]:
    """The content words that a person would mark, in text order; at least the likeliest."""
    content = [word for word in words if is_content(text[word[0] : word[1]])]
    best = sorted(content, key=lambda word: -word[2])[: most_marks(len(words))]
    kept = [word for word in best if word[2] >= MARKED] or best[:1]
    return tuple(Cause(s, e, text[s:e], weight) for s, e, weight in sorted(kept))


def most_marks(words: int) -> int:
    """The most words that are marked in a turn of so many words: 3, in a long one 5."""
    return 3 if words <= SHORT else 5
