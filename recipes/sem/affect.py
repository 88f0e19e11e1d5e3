"""Valence and arousal from EmoBank: the heads, their calibration, and how far words move them.

EmoBank (Buechel and Hahn 2017, CC BY-SA 4.0) holds people's mean ratings from 1 to 5; they become
(rating - 3) / 2, in [-1, 1]. Documents are split by their id: one in ten calibrates, the rest
train. Its validation split is only reported on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from empo_demo.empathy.encoder import SemNet, Text, Texts, last_turn
from empo_demo.empathy.feeling import spans
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_conversations, read_lines
from recipes.sem.corpora import by_length

CALIBRATION = 10
"""One of this many documents is kept for calibration."""
SHORTEST = 15
SCALES = (0.18, 0.12)
"""Standard deviations of valence and arousal in EmoBank: in training, targets are divided by them.
"""
WITHIN = 0.683
"""How often people's rating lies within one spread: as often as within one standard deviation."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Rated:
    """A sentence of EmoBank with its valence and arousal in [-1, 1]."""

    document: str
    content: str
    text: Text
    affect: tuple[float, float]


def emobank(data: Path, texts: Texts, split: str) -> list[Rated]:
    """EmoBank's sentences of one of its splits."""
    examples = []
    for where, row in read_lines(data / f"emobank.{split}.jsonl.gz"):
        try:
            content = str(row["text"])
            affect = tuple((float(row[name]) - 3) / 2 for name in ("valence", "arousal"))
            document = str(row["id"]).split("_")[0]
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: id, text, valence and arousal were expected.") from None
        examples.append(Rated(document, content, texts.turns([content]), (affect[0], affect[1])))
    return examples


def calibrates(example: Rated) -> bool:
    """Whether the sentence's document is kept from training, for calibration."""
    return int(hashlib.sha256(example.document.encode()).hexdigest(), 16) % CALIBRATION == 0


def fit_affect(net: SemNet, examples: Sequence[Rated]) -> tuple[float, float]:
    """Fit `net.affect` on the frozen encoder by ridge regression, then calibrate it.

    The head that was trained with the encoder (its targets were divided by `SCALES`) is kept
    where none reads the calibration sentences better. Returns base and slope of the `spread`.
    """
    train = [example for example in examples if not calibrates(example)]
    calibrating = [example for example in examples if calibrates(example)]
    seen, states = means(net, [e.text for e in train]), means(net, [e.text for e in calibrating])
    for column in range(2):
        target = np.array([e.affect[column] for e in train])
        truth = np.array([e.affect[column] for e in calibrating])
        fits = [_ridge(seen, target, penalty) for penalty in PENALTIES]
        own = net.affect.weight[column].detach().numpy() * SCALES[column]
        fits.append((own, net.affect.bias[column].item() * SCALES[column]))
        best = min(fits, key=partial(_error, states, truth))
        said = states @ best[0] + best[1]
        slope, shift = np.polyfit(said, truth, 1)
        with torch.no_grad():
            net.affect.weight[column] = torch.tensor(best[0] * slope)
            net.affect.bias[column] = float(best[1] * slope + shift)
        if column == 0:
            left = np.abs(truth - (said * slope + shift))
            size = np.abs(said * slope + shift)
    return spread(size, left)


def spread(size: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Base and slope: 68.3 % of the errors are at most base + slope · |valence| (the `size`).

    A few sentences are far off, so a standard deviation would be too wide for most of them.
    """
    grown, base = np.polyfit(size, error, 1)
    base, grown = max(float(base), 1e-6), max(0.0, float(grown))
    scale = float(np.quantile(error / (base + grown * size), WITHIN))
    return base * scale, grown * scale


def means(
    net: SemNet, texts: Sequence[Text], title: str = "valence", *, exact: bool = False
) -> np.ndarray:
    """(texts, dim) mean states of each text's last turn."""
    net.eval()
    means = np.zeros((len(texts), net.affect.in_features))
    for part, hidden, segments in _hidden(net, texts, title, exact=exact):
        means[part] = last_turn(hidden, segments).numpy()
    return means


def valences(net: SemNet, texts: Sequence[Text], title: str) -> np.ndarray:
    """(texts,) the valence that the head computes."""
    weight = net.affect.weight[0].detach().numpy()
    return np.asarray(means(net, texts, title, exact=True) @ weight + net.affect.bias[0].item())


def fit_pushes(net: SemNet, texts: Texts, sentences: Sequence[str]) -> float:
    """Fit `net.push` to predict how the valence changes when a word is left out.

    Its input is the sum of the states of the word's pieces. Every fifth sentence is held out; the
    correlation on these is returned.
    """
    states, targets, owners = left_out(net, texts, sentences)
    held = owners % 5 == 0
    fits = [_ridge(states[~held], targets[~held], p, intercept=False) for p in PENALTIES]
    best = min(fits, key=partial(_error, states[held], targets[held]))[0]
    with torch.no_grad():
        net.push.weight[0] = torch.tensor(best[:-1])
        net.push.bias[0] = float(best[-1])
    return float(np.corrcoef(states[held] @ best, targets[held])[0, 1])


def left_out(
    net: SemNet, texts: Texts, sentences: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each word: the sum of its pieces' states and their number, its effect, its sentence.

    The effect is the valence of the sentence minus that of the sentence without the word.
    """
    inputs = [texts.turns([sentence]) for sentence in sentences]
    variants, owners, features = [], [], []
    for part, hidden, _ in _hidden(net, inputs, "words of sentences", exact=True):
        for row, number in enumerate(part):
            sentence, text = sentences[number], inputs[number]
            for start, end in spans(sentence):
                own = [
                    i
                    for i, (s, e) in enumerate(text.offsets)
                    if text.segments[i] and s < end and e > start
                ]
                if own:
                    variants.append(texts.turns([sentence[:start] + sentence[end:]]))
                    owners.append(number)
                    features.append([*hidden[row, own].sum(0).tolist(), len(own)])
    whole = valences(net, inputs, "whole sentences")
    without = valences(net, variants, "sentences without a word")
    return np.array(features), whole[owners] - without, np.array(owners)


def sentences(data: Path, rated: Sequence[Rated]) -> list[str]:
    """What the pushes are fitted on: some of EmoBank's sentences and of ED-train's situations."""
    own = [example.content for example in rated if len(example.content) > SHORTEST][::12]
    return own + [c.situation for c in read_conversations(data, "train")][::40]


def _hidden(
    net: SemNet, texts: Sequence[Text], title: str, *, exact: bool = False
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    for part, ids, mask, segments in by_length(texts, title):
        # One word changes little: 16 bits are too coarse for the difference.
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=not exact):
            hidden = net.hidden(ids, mask)
        yield part, hidden, segments


def _error(states: np.ndarray, truth: np.ndarray, fit: tuple[np.ndarray, float]) -> float:
    return float(((states @ fit[0] + fit[1] - truth) ** 2).mean())


def _ridge(
    states: np.ndarray, target: np.ndarray, penalty: float, *, intercept: bool = True
) -> tuple[np.ndarray, float]:
    middle = states.mean(0) if intercept else np.zeros(states.shape[1])
    level = float(target.mean()) if intercept else 0.0
    centred = states - middle
    gram = centred.T @ centred + penalty * np.eye(states.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (target - level))
    return weight, level - float(middle @ weight)
