"""The small empathetic model (SEM): the emotion of a turn, and the words that caused it.

A SEM is any object with `read`. The embedded SEM is in `assets/sem`. A reading is about the last
user turn in its context. Its cause words are positions in that turn: the network gives a value to
each of the tokenizer's pieces, and the words with the most are marked.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS, parts
from empo_demo.empathy.feeling import (
    MOST_LEFT_OUT,
    Feeling,
    Push,
    is_content,
    lexicon_feeling,
    spans,
    tells,
)
from empo_demo.empathy.language import Why, why_unread
from empo_demo.empathy.reading import MOST_LIKELY, POSSIBLE, Cause, Epitome, Reading
from empo_demo.errors import InvalidInput
from empo_demo.processor import fast_bfloat16
from empo_demo.settings import ASSETS

if TYPE_CHECKING:
    import numpy as np

    from empo_demo.empathy.encoder import Text

BATCH = 64
STATE_LAYERS = (3, 6)
"""The layers of the encoder whose means the crisis classifier reads."""
MARKED = 0.45
"""A word is marked if a person would mark it with at least this probability. On EmoCause, words at
this weight are right as often as wrong, and below it more often wrong."""
KNOWN = 1 / 3
"""Where fewer of the words are whole pieces of the vocabulary, they may be random letters."""
SHORT = 25
"""A turn of at most this many words counts as short."""


class _Row(NamedTuple):
    """The answers of the heads to one text. Causes and pushes are per piece."""

    emotions: np.ndarray
    causes: list[float]
    valence: float
    arousal: float
    pushes: list[float]
    other: float
    """The probability that none of the 32 labels fits."""


@runtime_checkable
class SEM(Protocol):
    """What a plugin of the group `empo_demo.sem` must offer."""

    name: str
    revision: str

    def read(self, turns: Sequence[Turn]) -> Reading:
        """The reading of the last user turn of `turns`."""
        ...


class EmbeddedSEM:
    """The SEM of `assets/sem`: one encoder on the CPU. It is safe for threads."""

    name = "embedded"

    def __init__(self, folder: Path | None = None) -> None:
        from empo_demo.empathy.encoder import load

        folder = folder or ASSETS / "sem"
        self._net, self.texts, self._meta = load(folder)
        if fast_bfloat16():
            self._net.encoder.bfloat16()
            self._net.grader.bfloat16()
        self._gate = (self._meta.get("turn", ()), self._meta.get("parts", 0.0))
        self.revision = _revision(folder)
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return f"{self.name}@{self.revision}"

    def read(self, turns: Sequence[Turn]) -> Reading:
        return self.read_many([turns])[0]

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        """One reading per dialogue, with one forward pass per batch of similar length.

        Valence was learnt from single texts, and earlier turns would drown the last one, so a later
        turn is a row of its own for it.
        """
        started = time.perf_counter()
        contents = [_upto_user(turns) for turns in dialogues]
        texts = [self.texts.turns(turns) for turns in contents]
        later = [i for i, turns in enumerate(contents) if len(turns) > 1]
        alone = {i: self.texts.turns(contents[i][-1:]) for i in later}
        rows = self._pass([*texts, *alone.values()])
        lone = dict(zip(later, rows[len(texts) :], strict=True))
        elapsed = (time.perf_counter() - started) * 1000 / max(1, len(contents))
        readings = []
        for i, (turns, text) in enumerate(zip(contents, texts, strict=True)):
            whole, turn, own = rows[i], lone.get(i, rows[i]), alone.get(i, text)
            own_turn = i in lone and parts(whole.emotions, turn.emotions, *self._gate)
            row = turn if own_turn else whole
            why = why_unread(dialogues[i]) or self._why(turns[-1], own, row, turn)
            readings.append(
                Reading(
                    _ranked(row.emotions),
                    () if why else self._causes(turns, text, whole.causes),
                    self.label,
                    elapsed,
                    None if why else self._feeling(turns[-1], own, turn),
                    self._likely(row.emotions),
                    "turn" if own_turn else "dialogue",
                    why,
                )
            )
        return readings

    def _why(self, text: str, tokens: Text, row: _Row, turn: _Row) -> Why | None:
        """Why nothing is told of a turn whose text alone (`why_unread`) would be read."""
        likely = len(self._likely(row.emotions))
        pieces = [count for _, _, count in by_word(text, 1, tokens, [1] * len(tokens.ids), sum)]
        known = sum(count == 1 for count in pieces) / max(1, sum(count > 0 for count in pieces))
        if known < KNOWN and turn.emotions.max() < POSSIBLE:
            return "letters"
        if row.other >= self._meta.get("other", 2.0):
            return "other"
        return "little" if likely >= MOST_LIKELY else None

    def feelings(self, texts: Sequence[str]) -> list[Feeling]:
        """The valence of each text by itself. An empty text is neutral."""
        inputs = [self.texts.turns([text]) for text in texts]
        return [
            self._feeling(text, tokens, row)
            for text, tokens, row in zip(texts, inputs, self._pass(inputs), strict=True)
        ]

    def explained(self, texts: Sequence[str]) -> list[Feeling]:
        """`feelings`, but the push of each word that tells is measured: what is lost without it.

        Each of these words is one row more, so this is for texts that are finished.
        """
        feelings = self.feelings(texts)
        places = [
            (i, start, end)
            for i, text in enumerate(texts)
            for start, end in spans(text)[:MOST_LEFT_OUT]
            if tells(text[start:end])
        ]
        without = self.feelings([texts[i][:start] + texts[i][end:] for i, start, end in places])
        lost = {
            (i, start): feelings[i].valence - left.valence
            for (i, start, _), left in zip(places, without, strict=True)
        }
        return [
            replace(one, words=tuple(replace(w, by=lost.get((i, w.start), 0.0)) for w in one.words))
            for i, one in enumerate(feelings)
        ]

    def read_words(
        self, sentences: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[tuple[str, float], ...], list[float]]]:
        """For each list of tokens: ranked emotions, and a weight in [0, 1] per token."""
        texts = [self.texts.words(tokens) for tokens in sentences]
        return [
            (_ranked(row.emotions), per_token(tokens, text, row.causes))
            for tokens, text, row in zip(
                sentences, texts, self._pass(texts, words=True), strict=True
            )
        ]

    def emotions(self, dialogues: Sequence[Sequence[str]]) -> np.ndarray:
        """(dialogues, 32) 64-bit probabilities in the order of `EMOTIONS`. Each row sums to 1."""
        import numpy as np

        rows = self._pass([self.texts.turns(turns) for turns in dialogues])
        return np.stack([row.emotions for row in rows]) if rows else np.zeros((0, len(EMOTIONS)))

    def causes(self, texts: Sequence[str]) -> list[tuple[Cause, ...]]:
        """The cause words of each text, in order; none where no word has enough weight."""
        inputs = [self.texts.turns([text]) for text in texts]
        return [
            self._causes([text], tokens, row.causes)
            for text, tokens, row in zip(texts, inputs, self._pass(inputs), strict=True)
        ]

    def _causes(
        self, turns: Sequence[str], tokens: Text, weights: Sequence[float]
    ) -> tuple[Cause, ...]:
        scored = by_word(turns[-1], len(turns), tokens, weights)
        return choose(turns[-1], scored)

    def _feeling(self, text: str, tokens: Text, row: _Row) -> Feeling:
        """The feeling of a text that is the only turn of `tokens`."""
        if 1 not in tokens.segments:
            return Feeling(0.0, None, None, "sem")
        words = by_word(text, 1, tokens, row.pushes, sum)
        pushes = tuple(Push(s, e, text[s:e], by) for s, e, by in words)
        valence = min(1.0, max(-1.0, row.valence))
        base, slope = self._meta.get("spread", (0.0, 0.0))
        arousal = min(1.0, max(-1.0, row.arousal))
        return Feeling(valence, base + slope * abs(valence), arousal, "sem", pushes)

    def _likely(self, row: np.ndarray) -> tuple[str, ...]:
        """The conformal set of 90 %: all labels above a probability, and always the first one."""
        ranked = _ranked(row)
        return tuple(
            e for i, (e, p) in enumerate(ranked) if p >= self._meta.get("likely", 1.0) or not i
        )

    def _pass(self, texts: Sequence[Text], *, words: bool = False) -> list[_Row]:
        """Run one forward pass per batch and all heads that read a single text.

        With `words`, segments are words and not turns; all of them belong to the last turn.
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
            others = self._net.others(hidden, mask).sigmoid().tolist()
            for row, i in enumerate(part):
                count = len(texts[i].ids)
                valence, arousal = affects[row]
                rows[i] = _Row(
                    emotions[row],
                    weights[row][:count],
                    valence,
                    arousal,
                    pushes[row][:count],
                    others[row],
                )
        return rows

    def epitome(self, pairs: Sequence[tuple[str, str]]) -> list[Epitome]:
        """The levels of each (context, response)."""

        levels: list[Epitome | None] = [None] * len(pairs)
        inputs = [self.texts.pair(context, response) for context, response in pairs]
        for part, ids, mask, segments in self._batches(inputs):
            shared = self._net.shared(ids, mask)
            logits = self._net.levels(shared, mask, segments)[0].double()
            for row, i in enumerate(part):
                levels[i] = Epitome.from_rows(logits[row].softmax(-1).tolist())
        return cast("list[Epitome]", levels)

    def layer_means(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, layers x dim): the mean state over each text after `STATE_LAYERS`.

        Each layer's mean has length 1. The crisis classifier reads them.
        """
        import numpy as np

        from empo_demo.empathy.encoder import mean

        rows_of_text: list[Any] = [None] * len(texts)
        for part, ids, mask, _ in self._batches([self.texts.turns([text]) for text in texts]):
            states = self._net.encoder(
                input_ids=ids, attention_mask=mask, output_hidden_states=True
            ).hidden_states
            means = [mean(states[layer].float(), mask).numpy() for layer in STATE_LAYERS]
            rows = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in means]
            for row, i in zip(np.concatenate(rows, 1), part, strict=True):
                rows_of_text[i] = row
        return np.stack(rows_of_text)

    def _batches(self, texts: Sequence[Text]) -> Any:
        """Yield (indices, ids, mask, segments) of texts of similar length, without gradients."""
        import torch

        from empo_demo.empathy.encoder import collate

        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            with self._lock, torch.inference_mode():
                yield part, *collate([texts[i] for i in part])


def _revision(folder: Path) -> str:
    """Twelve hex digits of the hash of all files that a reading depends on."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        if path.name != "figures.json":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _upto_user(turns: Sequence[Turn]) -> list[str]:
    """The texts up to the last user turn, which is included."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        raise InvalidInput("There is no user's turn to read; give a text that a person wrote.")
    return [turn.content for turn in turns[: last + 1]]


def _ranked(row: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = sorted(range(len(EMOTIONS)), key=lambda i: -row[i])
    return tuple((EMOTIONS[i], float(row[i])) for i in order)


def feelings(sem: SEM | None, texts: Sequence[str], *, explained: bool = False) -> list[Feeling]:
    """The feeling of each text, by the SEM if it can, else by VADER.

    With `explained`, the pushes of words are measured if the SEM can.
    """
    own = getattr(sem, "feelings", None)
    if explained:
        own = getattr(sem, "explained", own)
    return list(own(texts)) if own is not None else [lexicon_feeling(text) for text in texts]


def by_word(
    text: str,
    turn: int,
    tokens: Text,
    values: Sequence[float],
    join: Callable[[Sequence[float]], float] = max,
) -> list[tuple[int, int, float]]:
    """(start, end, value) of each word of turn `turn`; `join` combines its pieces' values."""
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


def per_token(tokens: Sequence[str], text: Text, weights: Sequence[float]) -> list[float]:
    """The highest weight of each token's pieces; 0 for tokens beyond the longest input.

    The weight of a function word is cut to 1 %, so it is a cause only if no other word is.
    """
    by_token = [0.0] * len(tokens)
    for segment, weight in zip(text.segments, weights, strict=True):
        if segment:
            share = 1.0 if is_content(tokens[segment - 1]) else 0.01
            by_token[segment - 1] = max(by_token[segment - 1], share * weight)
    return by_token


def choose(
    text: str, words: Sequence[tuple[int, int, float]], least: float = MARKED
) -> tuple[Cause, ...]:
    """The content words with at least the weight `least`, in text order; a few, or none."""
    content = [word for word in words if is_content(text[word[0] : word[1]])]
    best = sorted(content, key=lambda word: -word[2])[: most_marks(len(words))]
    marks = [word for word in best if word[2] >= least]
    return tuple(Cause(s, e, text[s:e], weight) for s, e, weight in sorted(marks))


def most_marks(words: int) -> int:
    """The most words to mark in a turn of `words` words: 3, or 5 in a long one."""
    return 3 if words <= SHORT else 5
