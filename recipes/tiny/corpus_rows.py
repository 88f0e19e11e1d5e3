"""The training rows of the tiny base: dialogues as token ids with a weight per token.

One dialogue is one row, so no dialogue sees another. Listener turns have weight 1, user turns 0.5
(the model need not write them well), and system messages 0 (they are given, not learned).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from empo_demo.dialogue import Message
from empo_demo.empathy.hef import compact_form
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.common import read_general

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = {"system": 0.0, "user": 0.5, "assistant": 1.0}
KEEP = {"Schema-Guided Dialogue": 0.1}
"""Only this share of task dialogues is used: with more, the model answers "hi" with a hotel."""
EMPATHETIC_REPEATS = 2
"""How often a pass contains EmpatheticDialogues, with other system messages each time."""
AS_SITUATION = 0.25
"""Share of empathetic dialogues whose first turn is replaced by the writer's situation text. It
tells the same event in another way, and the listener's turns answer it just as well."""
WITH_EMOTION, WITH_CAUSES = 0.2, 0.2
"""Shares of empathetic dialogues with `The user feels …`, without and with cause words."""
_WORD = re.compile(r"[a-z][a-z'-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One dialogue: token ids and the weight of each as a target."""

    ids: list[int]
    weights: list[float]


class CauseWords:
    """Rare content words instead of cause annotations, which ED's training split lacks.

    The weight of a word is its inverse document frequency over all utterances. Words in fewer
    than five utterances (misspellings) or in more than 3 % (function words) are never used.
    """

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        texts = [turn["content"] for c in conversations for turn in c.turns]
        counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
        self._idf = {
            word: math.log(len(texts) / count)
            for word, count in counts.items()
            if 5 <= count <= 0.03 * len(texts)
        }

    def of(self, text: str, limit: int = 3) -> list[str]:
        """Up to `limit` words of `text`, in its order."""
        words = list(dict.fromkeys(_WORD.findall(text.lower())))
        best = sorted((w for w in words if w in self._idf), key=lambda w: -self._idf[w])[:limit]
        return [word for word in words if word in best]


class Corpus:
    """All training dialogues. `pass_of(n)` is the n-th pass, the same for the same seed."""

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, length: int, seed: int
    ) -> None:
        self.conversations = read_conversations(folder, "train")
        self._general = list(read_general(folder))
        self._causes = CauseWords(self.conversations)
        self._tokenizer, self._length, self._seed = tokenizer, length, seed

    def pass_of(self, number: int) -> list[Row]:
        """The rows of pass `number` (0, 1, …), shuffled."""
        rng = random.Random(f"{self._seed} pass {number}")
        dialogues = list(self._messages(rng))
        rng.shuffle(dialogues)
        return [encode(self._tokenizer, messages, self._length) for messages in dialogues]

    def _messages(self, rng: random.Random) -> Iterator[list[Message]]:
        for source, messages in self._general:
            if rng.random() < KEEP.get(source, 1.0):
                yield from _pieces(messages)
        for _ in range(EMPATHETIC_REPEATS):
            for conversation in self.conversations:
                turns = _view(conversation, rng)
                yield [*self._system(conversation.emotion, turns[0]["content"], rng), *turns]

    def _system(self, emotion: str, first: str, rng: random.Random) -> list[Message]:
        draw = rng.random()
        if draw >= WITH_EMOTION + WITH_CAUSES:
            return []
        words = self._causes.of(first) if draw < WITH_CAUSES else []
        return [{"role": "system", "content": compact_form(emotion, words)}]


def _view(conversation: Conversation, rng: random.Random) -> Sequence[Message]:
    if not conversation.situation or rng.random() >= AS_SITUATION:
        return conversation.turns
    return [{"role": "user", "content": conversation.situation}, *conversation.turns[1:]]


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], length: int) -> Row:
    """The tokens of `messages` in the template, cut to `length`. Role tags in texts stay text."""
    ids: list[int] = []
    weights: list[float] = []
    end = tokenizer.eos_token_id
    for message in messages:
        body = tokenizer(message["content"], add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        tag = cast(int, tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>"))
        ids += [tag, *body, end]
        weights += [0.0] + [WEIGHTS[message["role"]]] * (len(body) + 1)
    return Row(ids[:length], weights[:length])


def batches(rows: Sequence[Row], tokens: int, seed: str) -> list[list[Row]]:
    """Rows of similar length together, at most `tokens` padded tokens each, in random order."""
    rng = random.Random(seed)
    batches: list[list[Row]] = []
    for start in range(0, len(rows), 2000):
        group = sorted(rows[start : start + 2000], key=lambda row: len(row.ids))
        batch: list[Row] = []
        for row in group:
            if batch and (len(batch) + 1) * len(row.ids) > tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def _pieces(messages: list[Message], turns: int = 8) -> Iterator[list[Message]]:
    """Long dialogues, split into parts that start with a user's turn."""
    for start in range(0, len(messages), turns):
        piece = messages[start : start + turns]
        if len(piece) > 1:
            yield piece
