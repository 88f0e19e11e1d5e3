"""Splits texts into words, in the two ways that the paper's metrics use, and finds questions.

`words` is for length and distinct-n. `tokens` is NLTK's, without its data files.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

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
