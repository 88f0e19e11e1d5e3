"""The SEM's training examples: emotions, sentiment, cause words, EPITOME levels.

EmoCause's situations are dialogues of ED-valid: `folds.fold_of` splits both alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.empathy.emotions import EMOTIONS, GROUP_OF, GROUPS, INDEX
from empo_demo.empathy.encoder import Text, Texts, collate
from empo_demo.empathy.feeling import is_content
from empo_demo.errors import DataError
from empo_demo.progress import progress
from empo_demo.training.corpus import Conversation, file_hash, read_lines

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
_EPITOME = ("emotional_reactions", "explorations", "interpretations")
FILES = (
    "empathetic_dialogues.train.jsonl.gz",
    "empathetic_dialogues.valid.jsonl.gz",
    "emocause.valid.jsonl.gz",
    "epitome.train.jsonl.gz",
    "epitome.valid.jsonl.gz",
    "goemotions.train.jsonl.gz",
    "emobank.train.jsonl.gz",
    "emobank.valid.jsonl.gz",
    "general_dialogues.jsonl.gz",
)
"""What the SEM is trained, tuned and measured on."""


@dataclass(frozen=True, slots=True)
class Emotion:
    """A text and its label (0 to 31)."""

    text: Text
    label: int


@dataclass(frozen=True, slots=True)
class CauseExample:
    """A situation's words, and the set of those that name the cause.

    Where a teacher named them, `taught` has each word's probability instead.
    """

    conv_id: str
    words: tuple[str, ...]
    causes: frozenset[int]
    text: Text
    taught: tuple[float, ...] = ()

    def chance(self, word: int) -> float:
        """How probably the word names the cause."""
        return self.taught[word] if self.taught else float(word in self.causes)


@dataclass(frozen=True, slots=True)
class Pair:
    """An EPITOME pair, its levels (ER, EX, IP), and the tokens of the rationale of each.

    `seeker` is the id of the seeker's post. Where a teacher graded the pair, `taught` has the
    probabilities of each mechanism's levels, and nobody named rationales.
    """

    seeker: str
    post: str
    response: str
    text: Text
    levels: tuple[int, ...]
    rationales: tuple[tuple[int, ...], ...]
    taught: tuple[tuple[float, ...], ...] = ()


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of `FILES` that is there."""
    return {name: file_hash(folder / name) for name in FILES if (folder / name).is_file()}


def contexts(conversations: Sequence[Conversation], texts: Texts) -> list[Emotion]:
    """One example per listener turn: all turns before it."""
    return [
        Emotion(texts.turns([turn["content"] for turn in c.turns[:i]]), INDEX[c.emotion])
        for c in progress(conversations, "dialogues")
        for i, turn in enumerate(c.turns)
        if turn["role"] == "assistant"
    ]


def situations(conversations: Iterable[Conversation], texts: Texts) -> list[Emotion]:
    return [Emotion(texts.turns([c.situation]), INDEX[c.emotion]) for c in conversations]


def emotions(conversations: Sequence[Conversation], texts: Texts) -> list[Emotion]:
    """Both: all contexts, then all situations."""
    return contexts(conversations, texts) + situations(conversations, texts)


def go_emotions(
    folder: Path, turns: Callable[[Sequence[str]], Text]
) -> tuple[list[tuple[Text, list[float]]], int]:
    """GoEmotions' comments as `turns` makes them, each with 0 or 1 per kind of emotion.

    The number of kinds comes second.
    """
    rows = _comments(folder)
    kinds = sorted({label for _, labels in rows for label in labels})
    examples = [
        (turns([text]), [float(kind in labels) for kind in kinds])
        for text, labels in progress(rows, "GoEmotions' comments")
    ]
    return examples, len(kinds)


def count_kinds(folder: Path) -> int:
    """The number of GoEmotions' kinds of emotion."""
    return len({label for _, labels in _comments(folder) for label in labels})


def _comments(folder: Path) -> list[tuple[str, list[str]]]:
    rows = []
    for where, row in read_lines(folder / "goemotions.train.jsonl.gz"):
        try:
            rows.append((str(row["text"]), [str(label) for label in row["labels"]]))
        except (KeyError, TypeError):
            raise DataError(f"{where}: text and labels were expected.") from None
    return rows


def cause_examples(folder: Path, texts: Texts) -> list[CauseExample]:
    """EmoCause's situations that have a cause at all."""
    examples = []
    for where, row in read_lines(folder / "emocause.valid.jsonl.gz"):
        try:
            words = tuple(str(word) for word in row["tokens"])
            causes = frozenset(int(i) for i in row["cause_token_ids"])
            conv_id = str(row["conv_id"])
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{where}: conv_id, tokens and cause_token_ids were expected."
            ) from None
        if causes:
            examples.append(CauseExample(conv_id, words, causes, texts.words(words)))
    return examples


def epitome_pairs(folder: Path, texts: Texts, splits: Sequence[str]) -> list[Pair]:
    """The EPITOME pairs of the given files ("train", "valid")."""
    pairs = []
    for split in splits:
        for where, row in read_lines(folder / f"epitome.{split}.jsonl.gz"):
            try:
                er, ex, ip = (int(row["levels"][name]) for name in _EPITOME)
                post, response = str(row["seeker_post"]), str(row["response_post"])
                text = texts.pair(post, response)
                why = tuple(_tokens(text, response, row["rationales"][name]) for name in _EPITOME)
                seeker = str(row["sp_id"])
                pairs.append(Pair(seeker, post, response, text, (er, ex, ip), why))
            except (KeyError, TypeError, ValueError):
                raise DataError(
                    f"{where}: seeker_post, response_post, levels and rationales were expected."
                ) from None
    return pairs


def _tokens(text: Text, response: str, parts: Iterable[str]) -> tuple[int, ...]:
    """The places in `text` of the tokens inside the given parts of the response."""
    inside: set[int] = set()
    for part in parts:
        start = response.find(part.strip())
        if start >= 0:
            inside.update(range(start, start + len(part.strip())))
    return tuple(
        place
        for place, (segment, (start, _)) in enumerate(zip(text.segments, text.offsets, strict=True))
        if segment == 2 and start in inside
    )


def batches(examples: Sequence[Any], seed: str, size: int = BATCH) -> Iterator[list[Any]]:
    """Shuffled batches of examples of similar length."""
    rng = random.Random(seed)
    shuffled = list(examples)
    rng.shuffle(shuffled)
    batches = []
    for start in range(0, len(shuffled), 50 * size):
        group = sorted(shuffled[start : start + 50 * size], key=lambda e: len(e.text.ids))
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    rng.shuffle(batches)
    yield from batches


def by_length(
    texts: Sequence[Text], title: str
) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
    """All texts in batches of similar length: their indices, then what `collate` makes of them.

    Shows its progress as `title`.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    for start in progress(range(0, len(order), BATCH), title):
        part = order[start : start + BATCH]
        yield part, *collate([texts[i] for i in part])


def soft_labels(keep: float = 0.88, related: float = 0.07) -> list[list[float]]:
    """(32, 32) smoothed targets: `keep` on the label, `related` over its group, the rest evenly."""
    rows = []
    for label in EMOTIONS:
        mates = [other for other in GROUPS[GROUP_OF[label]] if other != label]
        row = [(1 - keep - related) / (len(EMOTIONS) - 1)] * len(EMOTIONS)
        for mate in mates:
            row[INDEX[mate]] += related / len(mates)
        row[INDEX[label]] = keep
        rows.append(row)
    return rows


def recall(
    examples: Sequence[CauseExample], scores: Sequence[Sequence[float]], k: int
) -> list[float]:
    """EmoCause's top-k recall of each situation: found cause words / all cause words."""
    values = []
    for example, weights in zip(examples, scores, strict=True):
        top = sorted(range(len(weights)), key=lambda i: -weights[i])[:k]
        values.append(len(example.causes.intersection(top)) / len(example.causes))
    return values


def ceiling(examples: Sequence[CauseExample], k: int) -> list[float]:
    """The same for an oracle that names k cause words."""
    return [min(k, len(e.causes)) / len(e.causes) for e in examples]


def chance(examples: Sequence[CauseExample], k: int, seed: int = 0) -> list[float]:
    """The same for k random words that are not stop words."""
    rng = random.Random(seed)
    scores = [
        [rng.random() if is_content(word) else -1.0 for word in example.words]
        for example in examples
    ]
    return recall(examples, scores, k)
