"""Patterns of crisis language, and a small linear classifier beside them.

`Patterns` reads `assets/safety/*.txt` and prepares texts for them. A file has `[section]` headings
with one regular expression per line, `# comments`, and a `[macros]` section whose names are written
`{NAME}` in the patterns.

Patterns know constructions; whether "I am on the bridge again" is a crisis depends on the rest of
the sentence. The classifier adds up three things: the words and pieces of words (which also carry
German), the states of the SEM's encoder (English), and whether a pattern matched. `recipes/crisis`
fits it on sentences of our own and writes `assets/safety/crisis.safetensors`.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.empathy.language import is_english
from empo_demo.errors import DataError
from empo_demo.settings import ASSETS

if TYPE_CHECKING:
    import numpy as np

_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ`´"), "")
_INVISIBLE = dict.fromkeys(map(ord, '\u00ad\u200b\u200c\u200d\u2060\ufeff*_~"'), "")
_SPACES = {ord(character): " " for character in "-–—/\\|\t\r"}
_TABLE = {**_APOSTROPHES, **_INVISIBLE, **_SPACES}
_SPELLINGS = (
    (re.compile(r"(?<=[a-z])[1!](?=[a-z])"), "i"),
    (re.compile(r"(?<=[a-z])0(?=[a-z])"), "o"),
    (re.compile(r"(?<=[a-z])3(?=[a-z])"), "e"),
    (re.compile(r"([a-z])\1{2,}"), r"\1"),
    (re.compile(r"\bwanna\b"), "want to"),
    (re.compile(r"\b(?:gonna|gunna|imma|finna)\b"), "going to"),
    (re.compile(r"\bgotta\b"), "have to"),
    (re.compile(r"\b(?:u|ya)\b"), "you"),
    (re.compile(r"\b(?:anymore|any more)\b"), "any more"),
    (re.compile(r"\b(?:can not)\b"), "cannot"),
    (re.compile(r"\.{2,}|…"), "."),
    (re.compile(r"[ ]+"), " "),
)
_NAME = re.compile(r"\{([A-Z]+)\}")


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled patterns by section. Matches of the `spared` patterns are cut out first."""

    sections: dict[str, tuple[re.Pattern[str], ...]]
    spared: tuple[re.Pattern[str], ...]

    def sections_in(self, text: str) -> tuple[str, ...]:
        """The sections with a match in any line of `text`, in the order of the file."""
        sections = set()
        for line in prepare(text).split("\n"):
            for pattern in self.spared:
                line = pattern.sub(" ; ", line)
            sections |= {
                name
                for name, patterns in self.sections.items()
                if name not in sections and any(pattern.search(line) for pattern in patterns)
            }
        return tuple(name for name in self.sections if name in sections)


def prepare(text: str) -> str:
    """Lower case, no apostrophes or marks, hyphens as spaces, common spellings written out."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(_TABLE)
    for pattern, replacement in _SPELLINGS:
        plain = pattern.sub(replacement, plain)
    return "\n".join(line.strip() for line in plain.split("\n") if line.strip())


@cache
def load_patterns(name: str, spared: str = "") -> Patterns:
    """Read `assets/safety/NAME.txt`. Matches of the section `spared` are cut out first."""
    path = ASSETS / "safety" / f"{name}.txt"
    sections, macros = _read(path)
    compiled = {
        section: tuple(_compile(line, macros, path) for line in lines)
        for section, lines in sections.items()
    }
    return Patterns({k: v for k, v in compiled.items() if k != spared}, compiled.get(spared, ()))


def _read(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text(encoding="utf8").splitlines():
        if line.startswith("[") and line.endswith("]") and re.fullmatch(r"\[[a-z -]+\]", line):
            current = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            current.append(line)
    pairs = (line.split(" = ", 1) for line in sections.pop("macros", []))
    return sections, {name.strip(): value.strip() for name, value in pairs}


def _compile(line: str, macros: dict[str, str], path: Path) -> re.Pattern[str]:
    expanded = line
    for _ in range(3):
        expanded = _NAME.sub(lambda match: macros[match[1]], expanded)
    try:
        return re.compile(expanded)
    except re.error as error:
        raise DataError(f"{path.name}: the pattern {line!r} cannot be read: {error}.") from None


WEIGHTS = ASSETS / "safety" / "crisis.safetensors"
BUCKETS = 1 << 16
"""Pieces of words share this many weights, by their hash."""
LEAST = 6.0
"""The length that short texts are divided by: the few pieces of "I see." say little."""
CHUNK = 240
"""The most characters that are read at once: the training sentences are no longer."""
CLEARLY = 2.0
"""How far (in logits) below the threshold a text must be to overrule a pattern's match."""
_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*\s*")


@dataclass(frozen=True, slots=True)
class Classifier:
    """One weight per state (may be none) and per bucket, for a pattern's match and for a text in
    another language, and a bias.

    A text is a crisis where its score reaches `threshold`, or is not far below it and a pattern
    matches.
    """

    states: np.ndarray
    pieces: np.ndarray
    pattern: float
    foreign: float
    bias: float
    threshold: float
    sem: str = ""
    """The revision of the SEM whose states are read."""

    def scores(
        self, texts: Sequence[str], matched: Sequence[bool], states: np.ndarray | None
    ) -> list[float]:
        """How far each text is above the threshold (below if negative).

        `matched`: whether a pattern found self-harm in it. `states`: (texts, dim), as the SEM's
        `layer_means` gives them; None for a classifier that reads words alone.
        """
        scores = []
        for i, (text, match) in enumerate(zip(texts, matched, strict=True)):
            score = self.bias - self.threshold + self.pattern * match
            score += self.foreign * is_foreign(text)
            score += sum(float(self.pieces[at]) * x for at, x in pieces(text).items())
            if states is not None:
                score += float(states[i] @ self.states)
            scores.append(score)
        return scores


def self_harm(
    texts: Sequence[str], matches: Callable[[str], bool], sem: object = None
) -> list[bool]:
    """Whether each text speaks of a crisis. `matches` says whether a pattern finds self-harm.

    The states of `sem` are read if the classifier was fitted with them, else words alone. A long
    text is read in parts; in doubt a pattern's match in a long text is enough.
    """
    # Half a surrogate pair is not a text: the tokenizer would refuse it.
    texts = [text.encode("utf8", "replace").decode("utf8") for text in texts]
    known = load()
    classifier = known["states"]
    means = getattr(sem, "layer_means", None)
    if means is None or getattr(sem, "revision", None) != classifier.sem:
        classifier, means = known["words"], None
    parts = [(i, part) for i, text in enumerate(texts) for part in chunks(text)]
    said = [part for _, part in parts]
    matched = [matches(part) for part in said]
    scores = classifier.scores(said, matched, means(said) if means and said else None)
    flags = [len(chunks(text)) > 1 and matches(text) for text in texts]
    for (i, _), match, score in zip(parts, matched, scores, strict=True):
        flags[i] = flags[i] or score >= (-CLEARLY if match else 0.0)
    return flags


def chunks(text: str) -> list[str]:
    """`text` in runs of whole sentences of at most `CHUNK` characters, if it is longer."""
    if len(text) <= CHUNK:
        return [text]
    parts = [""]
    for sentence in _SENTENCE.findall(text):
        if parts[-1] and len(parts[-1]) + len(sentence) > CHUNK:
            parts.append("")
        parts[-1] += sentence
    return [part for part in parts if part.strip()] or [text]


def pieces(text: str) -> dict[int, float]:
    """Buckets of words, two or three words in a row, and 3 to 5 letters; of length 1 at most."""
    words = re.findall(r"\w+", prepare(text).replace("\n", " "))
    counts: dict[int, float] = {}

    def add(name: str, weight: float) -> None:
        at = zlib.crc32(name.encode("utf8", "replace")) % BUCKETS
        counts[at] = counts.get(at, 0.0) + weight

    for word in words:
        add(f"w{word}", 1.0)
        framed = f"^{word}$"
        for size in (3, 4, 5):
            for start in range(len(framed) - size + 1):
                add(f"c{framed[start : start + size]}", 0.5)
    for one, other in itertools.pairwise(["<", *words, ">"]):
        add(f"b{one} {other}", 1.0)
    for one, middle, other in zip(words, words[1:], words[2:], strict=False):
        add(f"s{one} {other}", 0.5)
        add(f"t{one} {middle} {other}", 0.5)
    length = max(LEAST, sum(x * x for x in counts.values()) ** 0.5)
    return {at: x / length for at, x in counts.items()}


def is_foreign(text: str) -> bool:
    """Whether `text` is in another language; what people write every day was learnt in English."""
    return not is_english(text)


@cache
def load(path: Path = WEIGHTS) -> dict[str, Classifier]:
    """The classifiers `words` and `states`. Raises `DataError` for a file that is not one of ours.

    `states` fits only the encoder of the SEM in `assets/sem`, which the recipe read with.
    """
    import json

    from safetensors import SafetensorError, safe_open

    classifiers = {}
    try:
        with safe_open(path, "np") as file:
            meta = json.loads((file.metadata() or {})["crisis"])
            for name in ("words", "states"):
                head = meta[name]
                classifiers[name] = Classifier(
                    file.get_tensor(f"{name}.states").astype("float32"),
                    file.get_tensor(f"{name}.pieces").astype("float32"),
                    float(head["pattern"]),
                    float(head["foreign"]),
                    float(head["bias"]),
                    float(head["threshold"]),
                    meta["sem"] if name == "states" else "",
                )
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        line = str(error).split("\n")[0]
        raise DataError(f"The crisis classifier {path} cannot be read: {line}.") from None
    return classifiers
