"""Figures of the heads that are fitted on data which has no other split: cause words and EPITOME.

The shipped heads are fitted on all of that data, so each fold is read by heads that were fitted
anew on the other folds, on the frozen encoder, which never saw any of it. Whatever is chosen (the
scale of the weights of words) is chosen on the other folds as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from empo_demo.empathy.encoder import MECHANISMS, SemNet, collate
from empo_demo.empathy.feeling import is_content
from empo_demo.empathy.sem import MARKED, most_marks
from empo_demo.progress import progress
from recipes.sem import corpora
from recipes.sem.folds import (
    FOLDS,
    SEEKER_FOLDS,
    cross_validate,
    fold_of,
    fold_of_seeker,
    held_out_causes,
    held_out_pair,
    kept,
    number_of,
)
from recipes.sem.heads import fit_causes, fit_levels
from recipes.sem.intervals import Figure, figure, interval

PUBLISHED = {"er": (0.79, 0.74), "ip": (0.84, 0.67), "ex": (0.92, 0.73)}
"""Accuracy and macro-F1 of the RoBERTa bi-encoder, second-hand."""
AIMS = {"er": (0.74, 0.69), "ip": (0.79, 0.62), "ex": (0.87, 0.70)}


def cross_validate_causes(
    net: SemNet, examples: Sequence[corpora.CauseExample], *, seed: int
) -> tuple[tuple[float, float], list[Figure]]:
    """Scale and shift that make the logit of a word's weight a probability, and the figures.

    The scale of the shipped head comes from all folds' held-out words.
    """
    folds = [fold_of(example.conv_id) for example in examples]

    def read_logits(fold: int, own: list[int], others: list[int]) -> list[list[float]]:
        fresh = copy.deepcopy(net)
        fit_causes(fresh, [examples[i] for i in others], seed=seed)
        title = f"cause words, fold {fold + 1} of {FOLDS}"
        return [word_logits(fresh, examples[i]) for i in progress(own, title)]

    logits = cross_validate(folds, read_logits)

    def read_chances(_: int, own: list[int], others: list[int]) -> list[list[float]]:
        scale, shift = calibrated(examples, logits, others)
        return [[1 / (1 + float(np.exp(-scale * x - shift))) for x in logits[i]] for i in own]

    chances = cross_validate(folds, read_chances)
    return calibrated(examples, logits, range(len(examples))), cause_figures(examples, chances)


def held_out_cause_figures(
    net: SemNet,
    examples: Sequence[corpora.CauseExample],
    taught: Sequence[corpora.CauseExample],
    *,
    seed: int,
) -> tuple[tuple[float, float], list[Figure]]:
    """The same where a teacher helped: on the one fold whose cause words it did not learn.

    The scale of each half of that fold's words comes from the other half.
    """
    own = [e for e in examples if held_out_causes(e.conv_id)]
    fresh = copy.deepcopy(net)
    fit_causes(
        fresh, [*(e for e in examples if not held_out_causes(e.conv_id)), *taught], seed=seed
    )
    logits = [word_logits(fresh, example) for example in progress(own, "cause words, held out")]

    def read(_: int, mine: list[int], others: list[int]) -> list[list[float]]:
        scale, shift = calibrated(own, logits, others)
        return [[1 / (1 + float(np.exp(-scale * x - shift))) for x in logits[i]] for i in mine]

    chances = cross_validate([number_of(e.conv_id) // FOLDS % 2 for e in own], read)
    figures = cause_figures(own, chances)
    return calibrated(own, logits, range(len(own))), figures


def word_logits(net: SemNet, example: corpora.CauseExample) -> list[float]:
    """The highest logit of each word's pieces; far below 0 where it has none."""
    ids, mask, _ = collate([example.text])
    net.eval()
    with torch.inference_mode():
        pieces = net.causes(net.hidden(ids, mask))[0].tolist()
    logits = [-20.0] * len(example.words)
    for segment, logit in zip(example.text.segments, pieces, strict=True):
        if segment:
            logits[segment - 1] = max(logits[segment - 1], logit)
    return logits


def calibrated(
    examples: Sequence[corpora.CauseExample],
    logits: Sequence[Sequence[float]],
    which: Iterable[int],
) -> tuple[float, float]:
    """Scale and shift of a logistic regression of "a person marked it" on content words' logits."""
    rows = [
        (logit, float(word in examples[i].causes))
        for i in which
        for word, logit in enumerate(logits[i])
        if is_content(examples[i].words[word])
    ]
    if len({marked for _, marked in rows}) < 2:
        return 1.0, 0.0
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    design = np.stack([x, np.ones_like(x)], 1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-(design @ weights)))
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        weights = weights + np.linalg.solve(curve, design.T @ (y - chance))
    return float(max(weights[0], 1e-3)), float(weights[1])


def marks(words: Sequence[str], chances: Sequence[float]) -> list[int]:
    """The words that would be marked: as `EmbeddedSEM` chooses them."""
    content = [i for i, word in enumerate(words) if is_content(word)]
    best = sorted(content, key=lambda i: -chances[i])[: most_marks(len(words))]
    return [i for i in best if chances[i] >= MARKED]


def cause_figures(
    examples: Sequence[corpora.CauseExample], chances: Sequence[Sequence[float]]
) -> list[Figure]:
    """EmoCause's top-k recall; then how many words are marked, and how many of them correctly."""
    groups = [example.conv_id for example in examples]
    figures: list[Figure] = []
    # A function word is a cause only where nothing else is.
    scores = [
        [c if is_content(w) else 0.01 * c for w, c in zip(e.words, row, strict=True)]
        for e, row in zip(examples, chances, strict=True)
    ]
    for k, needed in ((1, 23.6), (3, 56.9), (5, 76.8)):
        hits = np.array(corpora.recall(examples, scores, k)) * 100
        best = float(np.mean(corpora.ceiling(examples, k))) * 100
        random = float(np.mean(corpora.chance(examples, k))) * 100
        low, high = interval(groups, lambda i, h=hits: float(h[i].mean()))
        figures.append(
            figure(
                f"causes, top-{k} recall %",
                hits.mean(),
                len(examples),
                low,
                high,
                baseline=random,
                ceiling=best,
                target=(needed, needed),
            )
        )
    chosen = [marks(e.words, row) for e, row in zip(examples, chances, strict=True)]
    right = [[i in e.causes for i in own] for e, own in zip(examples, chosen, strict=True)]
    wanted = np.array([len(e.causes) for e in examples], dtype=float)
    content = [[i for i, w in enumerate(e.words) if is_content(w)] for e in examples]
    base = sum(len(e.causes.intersection(c)) for e, c in zip(examples, content, strict=True))
    share = base / max(1, sum(map(len, content)))
    for name, lists, under, baseline, target in (
        ("marks, precision", right, None, share, (0.5, 0.5)),
        ("marks, recall", right, wanted, None, None),
    ):
        hits = np.array([sum(row) for row in lists], dtype=float)
        whole = np.array([len(row) for row in lists], dtype=float) if under is None else under
        ratio = partial(_ratio, hits, whole)
        low, high = interval(groups, ratio)
        figures.append(
            figure(
                f"causes, {name}",
                ratio(np.arange(len(examples))),
                int(whole.sum()),
                low,
                high,
                baseline=baseline,
                ceiling=1.0,
                target=target,
            )
        )
    counts = np.array([len(own) for own in chosen], dtype=float)
    low, high = interval(groups, lambda i: float(counts[i].mean()))
    figures.append(
        figure(
            "causes, marks per situation",
            counts.mean(),
            len(examples),
            low,
            high,
            baseline=float(np.mean([len(c) for c in content])),
            ceiling=float(wanted.mean()),
        )
    )
    return figures


def _ratio(hits: np.ndarray, whole: np.ndarray, indices: np.ndarray) -> float:
    return float(hits[indices].sum() / max(1.0, whole[indices].sum()))


def cross_validate_levels(
    net: SemNet, pairs: Sequence[corpora.Pair], work: Path, *, seed: int
) -> list[Figure]:
    """Figures of the five folds, each fitted on the other four; the encoder saw no pair.

    A fold's levels are kept in `work` and not made again.
    """

    def read(fold: int, own: list[int], others: list[int]) -> list[np.ndarray]:
        def anew() -> list[np.ndarray]:
            fresh = copy.deepcopy(net)
            title = f" fold {fold + 1} of {SEEKER_FOLDS}"
            fit_levels(fresh, [pairs[i] for i in others], seed=seed, title=title)
            return [np.array(predict(fresh, [pairs[i] for i in own]))]

        return list(kept(work / f"epitome-{fold}.npz", anew)[0])

    said = cross_validate([fold_of_seeker(pair.seeker) for pair in pairs], read)
    return level_figures(pairs, np.array(said))


def held_out_level_figures(
    net: SemNet, pairs: Sequence[corpora.Pair], taught: Sequence[corpora.Pair], *, seed: int
) -> list[Figure]:
    """Figures where a teacher helped: on the pairs whose seeker posts it did not see."""
    own = [pair for pair in pairs if held_out_pair(pair.seeker)]
    fresh = copy.deepcopy(net)
    known = [pair for pair in pairs if not held_out_pair(pair.seeker)]
    fit_levels(fresh, [*known, *taught], seed=seed, title=" but the held-out fold")
    return level_figures(own, np.array(predict(fresh, own)))


def predict(net: SemNet, pairs: Sequence[corpora.Pair]) -> list[list[int]]:
    """The most probable level of each mechanism, for each pair."""
    net.eval()
    levels: list[list[int]] = []
    with torch.inference_mode():
        for start in progress(range(0, len(pairs), 32), "EPITOME, levels of pairs"):
            ids, mask, segments = collate([pair.text for pair in pairs[start : start + 32]])
            levels += net.levels(net.shared(ids, mask), mask, segments)[0].argmax(-1).tolist()
    return levels


def level_figures(pairs: Sequence[corpora.Pair], said: np.ndarray) -> list[Figure]:
    """Accuracy and macro-F1 of each mechanism beside the majority level's; level 1's own F1."""
    groups = [pair.seeker for pair in pairs]
    truth = np.array([pair.levels for pair in pairs])
    figures = []
    scores: tuple[Callable[[np.ndarray, np.ndarray], float], ...] = (accuracy, macro_f1)
    for column, name in enumerate(MECHANISMS):
        given, own = truth[:, column], said[:, column]
        usual = np.full_like(given, np.bincount(given, minlength=3).argmax())
        for score, needed, published in zip(scores, AIMS[name], PUBLISHED[name], strict=True):
            low, high = interval(groups, lambda i, g=given, s=own, f=score: f(g[i], s[i]))
            title = f"EPITOME {name.upper()}, {score.__name__.replace('_', '-')}"
            title += f" (level 1: {int((given == 1).sum())} pairs)"
            figures.append(
                figure(
                    title,
                    score(given, own),
                    len(pairs),
                    low,
                    high,
                    baseline=score(given, usual),
                    ceiling=1.0,
                    target=(needed, published),
                )
            )
        # The rare level has its own score: the two above can look good even if it is never given.
        low, high = interval(groups, lambda i, g=given, s=own: level_f1(g[i], s[i], 1))
        figures.append(
            figure(
                f"EPITOME {name.upper()}, F1 of level 1",
                level_f1(given, own, 1),
                int((given == 1).sum()),
                low,
                high,
                baseline=level_f1(given, usual, 1),
                ceiling=1.0,
            )
        )
    return figures


def accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float((truth == said).mean())


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """The mean F1 of the levels that occur in `truth`."""
    return float(np.mean([level_f1(truth, said, level) for level in np.unique(truth)]))


def level_f1(truth: np.ndarray, said: np.ndarray, level: int) -> float:
    """The F1 of one level; 0 where it is neither true nor given."""
    both = ((truth == level) & (said == level)).sum()
    return float(2 * both / max(1, (truth == level).sum() + (said == level).sum()))
