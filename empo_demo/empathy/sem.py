"""The small empathetic model (SEM): which emotion a turn carries, and which words caused it.

A SEM is anything with `read`; the embedded one lives in `assets/sem`. A reading is about the last
user turn in its context, and its cause words are places in that turn.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.words import is_content, spans
from empo_demo.errors import InvalidInput
from empo_demo.settings import ASSETS

if TYPE_CHECKING:
    import numpy as np

    from empo_demo.empathy.encoder import Text
    from empo_demo.empathy.epitome import Epitome
    from empo_demo.settings import Settings

MOST_CAUSES = 5
BATCH = 64


@dataclass(frozen=True, slots=True)
class Cause:
    """A word of the last user turn, `text` = content[start:end]; `weight` in [0, 1]."""

    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Reading:
    """All 32 (label, probability), most probable first, and the cause words in text order."""

    emotions: tuple[tuple[str, float], ...]
    causes: tuple[Cause, ...]
    sem: str
    milliseconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "emotions": [{"label": label, "probability": p} for label, p in self.emotions],
            "causes": [
                {"start": c.start, "end": c.end, "text": c.text, "weight": c.weight}
                for c in self.causes
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """What `as_json` gave (with `sem` and `milliseconds` where they were stored beside it)."""
        return cls(
            tuple((str(e["label"]), float(e["probability"])) for e in data["emotions"]),
            tuple(Cause(**c) for c in data["causes"]),
            str(data.get("sem", "")),
            float(data.get("milliseconds", 0.0)),
        )


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
        self._net, self._texts, self._meta = load(folder)
        self.revision = hashlib.sha256((folder / "sem.json").read_bytes()).hexdigest()[:12]
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return f"{self.name}@{self.revision}"

    def read(self, turns: Sequence[Turn]) -> Reading:
        return self.read_many([turns])[0]

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        """One reading per dialogue, batched by length."""
        started = time.perf_counter()
        contents = [_upto_user(turns) for turns in dialogues]
        lasts = [turns[-1] for turns in contents]
        emotions = self.emotions(contents)
        causes = self.causes(lasts)
        elapsed = (time.perf_counter() - started) * 1000 / max(1, len(contents))
        return [
            Reading(_ranked(row), found, self.label, elapsed)
            for row, found in zip(emotions, causes, strict=True)
        ]

    def emotions(self, dialogues: Sequence[Sequence[str]]) -> np.ndarray:
        """(dialogues, 32) probabilities in the order of `EMOTIONS`, 64-bit, rows sum to 1."""
        import numpy as np
        import torch

        out = np.zeros((len(dialogues), len(EMOTIONS)))
        temperature = float(self._meta["temperature"])
        for part, ids, mask, _ in self._batches([self._texts.turns(d) for d in dialogues]):
            logits = self._net.emotions(self._net.hidden(ids, mask), mask).double() / temperature
            out[part] = torch.softmax(logits, -1).numpy()
        return out

    def causes(self, texts: Sequence[str]) -> list[tuple[Cause, ...]]:
        """The cause words of each text, in its order; never empty where it has a content word."""
        found: list[tuple[Cause, ...]] = [()] * len(texts)
        inputs = [self._texts.turns([text]) for text in texts]
        for part, ids, mask, _ in self._batches(inputs):
            weights = self._net.causes(self._net.hidden(ids, mask)).sigmoid()
            for row, i in enumerate(part):
                scored = _by_word(texts[i], inputs[i], weights[row].tolist())
                found[i] = _choose(texts[i], scored, float(self._meta["threshold"]))
        return found

    def cause_weights(self, tokens: Sequence[str]) -> list[float]:
        """One weight in [0, 1] per token; tokens past the longest input get 0."""
        text = self._texts.words(tokens)
        weights = [0.0] * len(tokens)
        for _, ids, mask, _ in self._batches([text]):
            scores = self._net.causes(self._net.hidden(ids, mask)).sigmoid()[0].tolist()
            for segment, score in zip(text.segments, scores, strict=False):
                if segment and is_content(tokens[segment - 1]):
                    weights[segment - 1] = max(weights[segment - 1], score)
                elif segment:
                    # A function word is a cause only where nothing else is: far below the rest.
                    weights[segment - 1] = max(weights[segment - 1], 0.01 * score)
        return weights

    def epitome(self, pairs: Sequence[tuple[str, str]]) -> list[Epitome]:
        """The levels of each (context, response)."""
        from empo_demo.empathy.epitome import Epitome

        found: list[Epitome | None] = [None] * len(pairs)
        inputs = [self._texts.pair(context, response) for context, response in pairs]
        for part, ids, mask, segments in self._batches(inputs):
            logits = self._net.levels(self._net.hidden(ids, mask), segments).double()
            for row, i in enumerate(part):
                found[i] = Epitome.from_rows(logits[row].softmax(-1).tolist())
        return cast("list[Epitome]", found)

    def token_embeddings(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The last hidden states of each text, (tokens, dim), special tokens left out."""
        import numpy as np

        found = [np.zeros((0, 0), dtype=np.float32)] * len(texts)
        inputs = [self._texts.turns([text]) for text in texts]
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


def load_sem(settings: Settings) -> SEM:
    """The SEM that `EMPO_SEM` names."""
    if settings.sem == "embedded":
        return EmbeddedSEM()
    from empo_demo.empathy.plugins import load_plugin

    return cast(SEM, load_plugin(settings.sem))


def _upto_user(turns: Sequence[Turn]) -> list[str]:
    """The texts up to and with the last user turn."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        raise InvalidInput("There is no user's turn to read; give a text that a person wrote.")
    return [turn.content for turn in turns[: last + 1]]


def _ranked(row: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = sorted(range(len(EMOTIONS)), key=lambda i: -row[i])
    return tuple((EMOTIONS[i], float(row[i])) for i in order)


def _by_word(text: str, tokens: Text, weights: Sequence[float]) -> list[tuple[int, int, float]]:
    """(start, end, weight) of each word: the highest weight of the pieces that touch it."""
    words = spans(text)
    scored = [0.0] * len(words)
    position = 0
    for (start, end), segment, weight in zip(
        tokens.offsets, tokens.segments, weights, strict=False
    ):
        if not segment:
            continue
        while position < len(words) and words[position][1] <= start:
            position += 1
        if position < len(words) and words[position][0] < end:
            scored[position] = max(scored[position], weight)
    return [(start, end, score) for (start, end), score in zip(words, scored, strict=True)]


def _choose(
    text: str, words: Sequence[tuple[int, int, float]], threshold: float
) -> tuple[Cause, ...]:
    """The content words over `threshold`, at most five, at least one; in text order."""
    content = [word for word in words if is_content(text[word[0] : word[1]])]
    best = sorted(content, key=lambda word: -word[2])[:MOST_CAUSES]
    kept = [word for word in best if word[2] >= threshold] or best[:1]
    return tuple(Cause(s, e, text[s:e], weight) for s, e, weight in sorted(kept))
