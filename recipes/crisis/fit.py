"""Fits the classifier of crisis language, in minutes on one core.

It learns from sentences of our own (`sentences_*.txt`), the phrases with which the patterns were
tuned, and half of `tests/data/crisis_sentences.jsonl`, whose other half nobody who tunes has read.
What people write on an ordinary day is harmless: without it one ordinary text in twenty was taken
for a crisis. Two logistic regressions are fitted, one on words alone and one that also reads the
states of the SEM's encoder. The threshold is the lowest one that flags at most `ORDINARY_FLAGGED`
of ordinary first turns that were not learnt from.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import minimize

from empo_demo.empathy import crisis
from empo_demo.empathy.crisis import load_patterns, prepare
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.ui.examples import examples

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ROOT / "tests" / "data" / "crisis_sentences.jsonl"
PHRASES = ROOT / "tests" / "empathy" / "safety_phrases.json"
LEARNT = {"empathetic_dialogues.train": 4000, "goemotions.train": 1500, "general_dialogues": 1000}
"""How many ordinary texts of each data set are learnt from."""
LATER = 1500
"""How many later turns of people in EmpatheticDialogues are learnt from: fragments, often."""
SHORT, SHORTEST = 4000, 40
"""How many texts of GoEmotions of at most so many characters are learnt from besides: a short text
has few pieces, and each weighs much. A fifth of them set the threshold instead."""
LEFT_OUT = 3000
"""How many more first turns of EmpatheticDialogues set the threshold, with short texts."""
ORDINARY_FLAGGED = 0.01
PENALTY = 3.0
"""The variance of the prior on each weight."""
WEIGHTS = {"own": 1.0, "tune": 2.0, "ordinary": 0.5}
FOREIGN = 3.0
"""How much more a harmless sentence of ours counts in another language: it stands for the ordinary
texts as well, which are all English."""
RUN, LIKE = 4, 0.5
"""Of a sentence that measures, no learnt one has half of all runs of four words."""
SCALES = {"states": 4.0, "pieces": 5.0, "marks": 2.0}
"""How strongly each part counts against the penalty on large weights."""


class Sentence(NamedTuple):
    """A text, whether it speaks of a crisis, and where it is from."""

    text: str
    crisis: bool
    source: str = "own"


def fit(data: Path, output: Path) -> None:
    """Fit both classifiers and write them to one file."""
    from safetensors.numpy import save_file

    ordinary, left_out = _ordinary(data)
    learnt = list({sentence.text: sentence for sentence in [*ordinary, *sentences()]}.values())
    texts = [sentence.text for sentence in [*learnt, *left_out]]
    y = np.array([sentence.crisis for sentence in learnt], np.float64)
    weight = np.array([_weight(sentence) for sentence in learnt])
    print(f"{len(learnt)} texts, {int(y.sum())} of a crisis")
    sem = EmbeddedSEM()
    states = sem.layer_means(texts)
    pieces, rarity = _pieces(texts, len(learnt))
    marks = SCALES["marks"] * np.array([_marks(text) for text in texts], np.float32)
    tensors: dict[str, np.ndarray] = {}
    meta: dict[str, Any] = {"sem": sem.revision}
    for name, read in (("words", states[:, :0]), ("states", states)):
        dense = np.concatenate([SCALES["states"] * read, marks], 1)
        w, v, bias = regression(pieces[: len(y)], dense[: len(y)], y, weight)
        scores = np.sort(pieces[len(y) :] @ w + dense[len(y) :] @ v + bias)[::-1]
        threshold = float(scores[int(ORDINARY_FLAGGED * len(scores))]) + 1e-4
        pattern, foreign = (float(x) * SCALES["marks"] for x in v[-2:])
        print(f"{name}: threshold {threshold:.2f}, pattern {pattern:.2f}, foreign {foreign:.2f}")
        tensors[f"{name}.states"] = (v[:-2] * SCALES["states"]).astype(np.float16)
        tensors[f"{name}.pieces"] = (w * rarity).astype(np.float16)
        meta[name] = {
            "pattern": pattern,
            "foreign": foreign,
            "bias": float(bias),
            "threshold": threshold,
        }
    save_file(tensors, output, metadata={"crisis": json.dumps(meta)})


def sentences() -> list[Sentence]:
    """What is learnt beside ordinary texts; nothing that is like a sentence that measures."""
    rows = map(json.loads, SENTENCES.read_text(encoding="utf8").splitlines())
    measuring = [runs(row["text"]) for row in rows if row["half"] == "test"]
    return [sentence for sentence in _written() if not is_like(runs(sentence.text), measuring)]


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of `RUN` words in `text`, or all its words if it is shorter."""
    words = re.findall(r"\w+", prepare(text))
    return {tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}


def is_like(text: set[tuple[str, ...]], others: list[set[tuple[str, ...]]]) -> bool:
    """Whether `text` has at least `LIKE` of the runs of one of `others`."""
    return any(len(text & other) >= LIKE * len(other) for other in others)


def _written() -> Iterator[Sentence]:
    for path in sorted(Path(__file__).parent.glob("sentences_*.txt")):
        label = False
        for line in path.read_text(encoding="utf8").splitlines():
            if line in ("[crisis]", "[harmless]"):
                label = line == "[crisis]"
            elif line and not line.startswith("#"):
                yield Sentence(line, label)
    yield from _phrases()
    for example in examples():
        said = example.before.plus("user", example.text)
        yield from (Sentence(turn.content, False) for turn in said.turns if turn.role == "user")
    for line in SENTENCES.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        if row["half"] == "tune":
            yield Sentence(row["text"], row["crisis"], "tune")


def _phrases() -> Iterator[Sentence]:
    """The phrases of the patterns, without those that `tests/empathy/test_safety.py` holds out."""
    phrases = json.loads(PHRASES.read_text(encoding="utf8"))
    for label, name in ((True, "self-harm"), (False, "near_misses")):
        for text in phrases[name]:
            if int(hashlib.sha256(text.encode()).hexdigest()[0], 16) % 2:
                yield Sentence(text, label)
    yield from (Sentence(text, True) for text in phrases["later"]["crisis"])
    yield from (Sentence(text, False) for text in phrases["later"]["near_misses"])


def _ordinary(data: Path) -> tuple[list[Sentence], list[Sentence]]:
    """Ordinary texts to learn from, in which no pattern finds a crisis; and first turns that set
    the threshold, whatever the patterns find in them."""
    patterns = load_patterns("crisis", "idioms")
    learnt: list[Sentence] = []
    left_out: list[Sentence] = []
    for name, count in LEARNT.items():
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf8") as file:
            rows = [json.loads(line) for line in file]
        random.Random(0).shuffle(rows)
        texts = [_turn(row) for row in rows]
        calm = (text for text in texts[:count] if not patterns.sections_in(text))
        learnt += [Sentence(text, False, "ordinary") for text in calm]
        if name.startswith("goemotions"):
            rest = [text for text in texts[count:] if len(text) <= SHORTEST][:SHORT]
            left_out += [Sentence(text, False, "ordinary") for text in rest[: SHORT // 5]]
            calm = (text for text in rest[SHORT // 5 :] if not patterns.sections_in(text))
            learnt += [Sentence(text, False, "ordinary") for text in calm]
        if name.startswith("empathetic"):
            later = (_turn(row, 2) for row in rows[:LATER] if len(row["utterances"]) > 2)
            learnt += [Sentence(text, False, "ordinary") for text in later]
            more = texts[count : count + LEFT_OUT]
            left_out += [Sentence(text, False, "ordinary") for text in more]
    return learnt, left_out


def _turn(row: dict[str, Any], at: int = 0) -> str:
    """A turn of a dialogue, or a text by itself; no longer than is read at once."""
    turn = row["utterances"][at] if "utterances" in row else row["text"]
    return str(turn["content"] if isinstance(turn, dict) else turn)[: crisis.CHUNK]


def _weight(one: Sentence) -> float:
    calm = one.source == "own" and not one.crisis and crisis.is_foreign(one.text)
    return WEIGHTS[one.source] * (FOREIGN if calm else 1.0)


def _marks(text: str) -> tuple[float, float]:
    """Whether a pattern finds self-harm, and whether the text is in another language."""
    sections = load_patterns("crisis", "idioms").sections_in(text)
    return float("self-harm" in sections), float(crisis.is_foreign(text))


def _pieces(texts: list[str], learnt: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """(texts, BUCKETS) pieces, each bucket times its rarity among the first `learnt` texts, and
    that factor: the root of the inverse document frequency, 1 on average."""
    values: list[float] = []
    places: list[int] = []
    ends = [0]
    for text in texts:
        pieces = crisis.pieces(text)
        places += pieces.keys()
        values += pieces.values()
        ends.append(len(places))
    shape = (len(texts), crisis.BUCKETS)
    rows = sparse.csr_matrix((np.array(values, np.float32), places, ends), shape)
    counts = np.bincount(rows[:learnt].indices, minlength=crisis.BUCKETS)
    rarity = np.sqrt(np.log(learnt / (counts + 1)).clip(min=0))
    rarity *= SCALES["pieces"] / rarity[counts > 0].mean()
    return (rows @ sparse.diags(rarity)).tocsr().astype(np.float32), rarity


def regression(
    pieces: sparse.csr_matrix, dense: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The weights of both parts and the bias of a logistic regression with an L2 penalty."""
    columns = pieces.shape[1]

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        w, v = at[:columns], at[columns:-1]
        z = pieces @ w + dense @ v + at[-1]
        value = (weight * np.logaddexp(0, np.where(y > 0, -z, z))).sum()
        wrong = weight * (1 / (1 + np.exp(-z.clip(-30, 30))) - y)
        slopes = [pieces.T @ wrong + w / PENALTY, dense.T @ wrong + v / PENALTY, [wrong.sum()]]
        return value + at[:-1] @ at[:-1] / (2 * PENALTY), np.concatenate(slopes)

    start = np.zeros(columns + dense.shape[1] + 1)
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return weights[:columns], weights[columns:-1], float(weights[-1])
