"""A judge of the emotion that a reply is about. It has no part in HEF's guidance.

It is multinomial naive Bayes over words and word pairs, trained in seconds on the listeners' turns
of EmpatheticDialogues' training split. It shares neither weights nor inputs with the SEM: the SEM
reads users, this judge reads replies. Show every figure with its accuracy on human replies.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.empathy.emotions import EMOTIONS, INDEX
from empo_demo.errors import DataError
from empo_demo.files import parse_json, read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SMOOTHING = 0.3
RAREST = 3
"""Features in fewer training turns than this are left out: names and misspellings."""
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class ReplyJudge:
    """`table` is log P(feature | emotion), features by 32. Priors are uniform."""

    vocabulary: dict[str, int]
    table: Array

    name = "naive Bayes over listeners' turns"

    def probabilities(self, texts: Sequence[str]) -> Array:
        """P(emotion | text), texts by 32; uniform for a text without known words."""
        import numpy as np

        logits = np.zeros((len(texts), len(EMOTIONS)))
        for row, text in enumerate(texts):
            known = [self.vocabulary[f] for f in features(text) if f in self.vocabulary]
            if known:
                # Words and their pairs count the same evidence twice. Division by the square
                # root of their number reduces the overconfidence of naive Bayes.
                logits[row] = self.table[known].sum(axis=0) / len(known) ** 0.5
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        result: Array = odds / odds.sum(axis=1, keepdims=True)
        return result


def train_judge(path: Path) -> ReplyJudge:
    """Train on the listeners' turns of the dialogues in `path` (JSONL of ED, .gz too)."""
    import numpy as np

    turns = [(set(features(text)), INDEX[emotion]) for text, emotion in _listener_turns(path)]
    if not turns:
        raise DataError(f"{path} holds no listener's turn with one of the 32 emotions.")
    frequency = Counter(feature for found, _ in turns for feature in found)
    kept = sorted(feature for feature, count in frequency.items() if count >= RAREST)
    vocabulary = {feature: position for position, feature in enumerate(kept)}
    counts = np.full((len(kept), len(EMOTIONS)), SMOOTHING)
    for found, emotion in turns:
        for feature in found & vocabulary.keys():
            counts[vocabulary[feature], emotion] += 1
    return ReplyJudge(vocabulary, np.log(counts) - np.log(counts.sum(axis=0, keepdims=True)))


def features(text: str) -> list[str]:
    """Lower-case words and pairs of neighbours."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    return [*words, *(f"{one} {other}" for one, other in itertools.pairwise(words))]


def _listener_turns(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
            emotion, turns = record["emotion"], record["utterances"]
            if emotion in INDEX:
                yield from ((t["content"], emotion) for t in turns if t["role"] == "assistant")
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: an object with emotion and utterances was expected."
            ) from None
