"""Valence, arousal and dominance of texts, from a lexicon of words.

As in MichiganNLP's `empathy_eval`, which EmPO (arXiv 2406.19071) uses: the value of each token (0
for unknown ones), the maximum and the mean over the text, and the difference between the user's
last turn and the response. The default lexicon has only valence: its arousal and dominance are
None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from empo_demo.errors import DataError
from empo_demo.metrics.lexical import tokens

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import (  # type: ignore[import-untyped,unused-ignore]
        SentimentIntensityAnalyzer,
    )

VADER_LIMIT = 4.0
"""VADER rates a word from -4 to 4. `(x + 4) / 8` maps this to NRC-VAD's range, 0 to 1."""


class Vad(NamedTuple):
    """Valence, arousal, dominance; None if the lexicon has no such column."""

    v: float | None
    a: float | None
    d: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """Word -> values in [0, 1], one per dimension. `name` is short, `label` is for the page."""

    name: str
    label: str
    values: Mapping[str, tuple[float, ...]]
    dimensions: int
    rules: bool = False
    """Whether `text_valence` may use VADER's rules (negation, intensifiers)."""


@dataclass(frozen=True, slots=True)
class TextVad:
    """Maximum and mean over the tokens of one text, both in [0, 1]; 0 for an empty text."""

    max: Vad
    mean: Vad


def load_lexicon(path: Path | None = None) -> Lexicon:
    """The NRC-VAD file at `path`, or the default (VADER, MIT licence, only valence).

    The file is a TSV of word, valence, arousal, dominance in [0, 1], with or without a header
    line. Raises a `DataError` that names the line if a column is missing or a value is wrong.
    """
    if path is None:
        return _vader()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"The lexicon {path} cannot be read: {error.strerror}.") from None
    return _nrc_vad(path, stamp)


def text_vad(text: str, lexicon: Lexicon) -> TextVad:
    """Maximum and mean of valence, arousal and dominance over the lower-cased tokens."""
    zero = (0.0,) * lexicon.dimensions
    rows = [lexicon.values.get(token, zero) for token in tokens(text.lower())] or [zero]
    columns = list(zip(*rows, strict=True))
    return TextVad(
        max=_vad([max(column) for column in columns]),
        mean=_vad([sum(column) / len(column) for column in columns]),
    )


def difference(user: Vad, response: Vad) -> Vad:
    """User's turn minus response, per dimension. It is positive if the response is lower."""
    return Vad(
        *(None if u is None or r is None else u - r for u, r in zip(user, response, strict=True))
    )


def text_valence(text: str, lexicon: Lexicon) -> float:
    """One valence in [-1, 1] for plots; 0 if no word is known.

    With VADER it is the compound score, which includes negation. With another lexicon it is the
    mean of the known words, mapped from [0, 1] to [-1, 1].
    """
    if lexicon.rules:
        return float(_analyzer().polarity_scores(text)["compound"])
    known = [lexicon.values[t][0] for t in tokens(text.lower()) if t in lexicon.values]
    return 2 * sum(known) / len(known) - 1 if known else 0.0


def _vad(values: list[float]) -> Vad:
    padded: list[float | None] = [*values, None, None]
    return Vad(*padded[:3])


@cache
def _vader() -> Lexicon:
    from importlib.resources import files

    source = (files("vaderSentiment") / "vader_lexicon.txt").read_text(encoding="utf8")
    values = {}
    for line in source.splitlines():
        word, rating = line.split("\t")[:2]
        values[word] = ((float(rating) + VADER_LIMIT) / (2 * VADER_LIMIT),)
    label = "VADER (MIT licence): valence only, −4…4 mapped to 0…1; set EMPO_NRC_VAD for NRC-VAD"
    return Lexicon("vader", label, values, dimensions=1, rules=True)


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@lru_cache(maxsize=4)
def _nrc_vad(path: Path, _stamp: int) -> Lexicon:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"The lexicon {path} is not a readable UTF-8 text file.") from None
    if lines and _is_header(path, lines[0]):
        lines[0] = ""
    values = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            word, row = _entry(path, number, line)
            values[word] = row
    if not values:
        raise DataError(f"The lexicon {path} holds no word. {_EXPECTED}")
    label = f"NRC-VAD ({len(values):,} words, from {path.name})"
    return Lexicon("nrc-vad", label, values, dimensions=3)


_EXPECTED = "Each line must be: word, valence, arousal, dominance, with tabs between, in 0…1."


def _is_header(path: Path, line: str) -> bool:
    """Whether the first line is a header. Its columns must be v, a, d."""
    cells = [cell.strip().lower() for cell in line.split("\t")]
    if any(_number(cell) is not None for cell in cells[1:]):
        return False
    if [cell[:1] for cell in cells[1:]] != ["v", "a", "d"]:
        raise DataError(f"The lexicon {path} has the columns {', '.join(cells)}. {_EXPECTED}")
    return True


def _entry(path: Path, number: int, line: str) -> tuple[str, tuple[float, ...]]:
    cells = line.split("\t")
    if len(cells) != 4:
        raise DataError(f"The lexicon {path}, line {number}, has {len(cells)} columns. {_EXPECTED}")
    row = tuple(_number(cell) for cell in cells[1:])
    if any(value is None or not 0 <= value <= 1 for value in row):
        raise DataError(
            f"The lexicon {path}, line {number}, holds {', '.join(cells[1:])!r}. {_EXPECTED}"
        )
    return cells[0].strip().lower(), tuple(value for value in row if value is not None)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
