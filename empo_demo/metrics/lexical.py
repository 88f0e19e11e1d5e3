"""Words of replies: length, questions, distinct-n and specificity.

`words` is for length and distinct-n. `tokens` is NLTK's, without its data files.

Distinct-n is the share of n-grams that are different (Li et al. 2016, arXiv 1510.03055). N-grams
never cross a response. The corpus value falls with the size of the corpus, so systems are compared
at an equal number of words.

Specificity is the normalised inverse document frequency of See et al. 2019 (arXiv 1902.08654). As
in MichiganNLP's `empathy_eval`, which EmPO uses: a document is an utterance of EmpatheticDialogues
(training and validation split), tokens are NLTK's with their case kept, and a token that is in no
utterance has the highest specificity.
"""

from __future__ import annotations

import gzip
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import DataError
from empo_demo.files import parse_json, read_text

if TYPE_CHECKING:
    from nltk.tokenize import NLTKWordTokenizer  # type: ignore[import-untyped,unused-ignore]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_QUESTION = re.compile(
    r"\?|(?:^|[.!,]\s+)(?:who|what|when|where|why|how|which|(?:do|did|are|were|have|can) you)\b",
    re.I,
)


def words(text: str) -> list[str]:
    """Lower-cased and split at white space, as for length and distinct-n (Li et al. 2016)."""
    return text.lower().split()


def asks(text: str) -> bool:
    """Whether a text asks something: by a question mark or, which small models forget, by the first
    word of one of its clauses."""
    return _QUESTION.search(text) is not None


@lru_cache(maxsize=65_536)
def tokens(text: str) -> tuple[str, ...]:
    """NLTK's `word_tokenize`, case kept, without the Punkt data that pip does not install.

    Sentences end after ``.``, ``!`` or ``?`` and white space; `NLTKWordTokenizer` splits each. On
    EmPO's texts the figures equal those of `word_tokenize`.
    """
    tokenise = _tokenizer().tokenize
    return tuple(token for sentence in _SENTENCE_END.split(text) for token in tokenise(sentence))


@cache
def _tokenizer() -> NLTKWordTokenizer:
    # The import of NLTK takes over a second, and the first paint of the page must not wait.
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


ORDERS = (1, 2, 3)
SHUFFLES = 10
"""`distinct_at` averages over this many seeded orders of the responses."""


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Corpus distinct-n: different n-grams / all n-grams, in (0, 1]; None without any n-gram."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = ngrams(words(text), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def share_new(text: str, before: Sequence[str]) -> float | None:
    """The share of the words of `text` that nobody has said yet, in [0, 1]; None without a word.

    A word is new if it is neither in the texts `before` nor earlier in `text`.
    """
    said = {word for earlier in before for word in words(earlier)}
    own = words(text)
    return len(set(own) - said) / len(own) if own else None


def distinct_each(texts: Sequence[str], n: int) -> list[float | None]:
    """Distinct-n of each response by itself; None if it has fewer than n words."""
    return [distinct([text], n) for text in texts]


def distinct_per_response(texts: Sequence[str], n: int) -> float | None:
    """Mean of `distinct_each` over the responses with at least n words; None without any."""
    values = [value for value in distinct_each(texts, n) if value is not None]
    return sum(values) / len(values) if values else None


def distinct_at(texts: Sequence[str], n: int, budget: int, seed: int = 0) -> float | None:
    """Corpus distinct-n of the first `budget` words, averaged over seeded orders of `texts`.

    The last response is cut at the end of the budget. The texts are sorted before they are
    shuffled, so their order does not matter. With a budget of all words this equals `distinct`.
    """
    ordered = sorted(texts)
    if budget >= count_words(ordered):
        return distinct(ordered, n)
    draw = random.Random(seed)
    values = []
    for _ in range(SHUFFLES):
        draw.shuffle(ordered)
        value = distinct(_first_words(ordered, budget), n)
        if value is not None:
            values.append(value)
    return sum(values) / len(values) if values else None


def equal_budget(systems: Sequence[Sequence[str]]) -> int:
    """The largest number of words that every system has."""
    return min((count_words(texts) for texts in systems), default=0)


def count_words(texts: Sequence[str]) -> int:
    return sum(len(words(text)) for text in texts)


def mean_words(texts: Sequence[str]) -> float | None:
    """Mean number of words of a response; an empty one counts 0. None without responses."""
    return count_words(texts) / len(texts) if texts else None


def ngrams(items: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n neighbouring items, in order; n must be at least 1."""
    if n < 1:
        raise ValueError("an n-gram has at least one item")
    return list(zip(*(items[start:] for start in range(n)), strict=False))


def _first_words(texts: Sequence[str], budget: int) -> list[str]:
    parts = []
    for text in texts:
        if budget <= 0:
            break
        part = words(text)[:budget]
        parts.append(" ".join(part))
        budget -= len(part)
    return parts


UNKNOWN = 1.0
"""The value of a token that is not in the counts."""


def utterance_counts(utterances: Iterable[str]) -> Counter[str]:
    """In how many utterances each token occurs. An utterance counts once."""
    counts: Counter[str] = Counter()
    for utterance in utterances:
        counts.update(set(tokens(utterance)))
    return counts


def nidf_table(counts: Mapping[str, int]) -> dict[str, float]:
    """The value of each token: (ln max - ln count) / (ln max - ln min), in [0, 1].

    If all counts are equal, every token has 0. Raises `ValueError` if the counts are empty or
    contain a number below 1.
    """
    if not counts or min(counts.values()) < 1:
        raise ValueError("counts of tokens are needed, each at least 1")
    highest, lowest = (math.log(pick(counts.values())) for pick in (max, min))
    span = highest - lowest
    return {
        token: (highest - math.log(count)) / span if span else 0.0
        for token, count in counts.items()
    }


def nidf(text: str, table: Mapping[str, float]) -> float | None:
    """Mean over the *set* of tokens of `text`, in [0, 1]; None for a text without a token."""
    values = [table.get(token, UNKNOWN) for token in set(tokens(text))]
    return math.fsum(values) / len(values) if values else None


def read_counts(path: Path) -> Counter[str]:
    """Counts from a table (token, tab, count) or from dialogues (JSONL, `utterances`); .gz too."""
    counts: Counter[str] = Counter()
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    if lines and lines[0].lstrip().startswith("{"):
        return utterance_counts(_utterances(path, lines))
    for number, line in enumerate(lines, start=1):
        token, _, count = line.rpartition("\t")
        if not token or not count.isdigit() or int(count) < 1:
            raise DataError(f"{path}, line {number}: a token, a tab and a count were expected.")
        counts[token] = int(count)
    if not counts:
        raise DataError(f"{path} holds no counts and no dialogues.")
    return counts


def write_counts(counts: Mapping[str, int], path: Path) -> None:
    """Write the table that `read_counts` reads: gzipped, most frequent first, reproducible."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = "".join(f"{token}\t{count}\n" for token, count in rows)
    path.write_bytes(gzip.compress(text.encode("utf8"), mtime=0))


def _utterances(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = parse_json(line)
            yield from (str(turn["content"]) for turn in record["utterances"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: an object with 'utterances' was expected."
            ) from None
