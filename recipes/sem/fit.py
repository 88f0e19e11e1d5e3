"""The SEM from its start to its card: one encoder that is trained, then heads that read it.

1. Sentiment: GoEmotions and EmoBank, so that the encoder hears feeling before it sees a dialogue.
2. Emotions: contexts and situations of ED-train, with EmoBank's valence among them. With several
   `runs` in different orders their weights are averaged (a model soup, arXiv 2203.05482).
3. The encoder is averaged with the weights it started from (WiSE-FT, arXiv 2109.01903), frozen,
   and the other heads are fitted on it (`heads`, `affect`).

One tenth of ED-train's dialogues (by task, `folds.kept_back`) and all of ED-valid are never
trained on by the encoder, so that `quality` can measure on both. A kill loses at most
`SAVE_EVERY` steps.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from empo_demo.empathy.encoder import SemNet, Texts, save
from empo_demo.training.corpus import read_conversations
from empo_demo.training.train import claim
from recipes.sem import affect, corpora
from recipes.sem.card import write_card
from recipes.sem.choice import choose
from recipes.sem.cross_validate_emotions import cross_validate_emotions
from recipes.sem.cross_validate_heads import (
    cross_validate_causes,
    cross_validate_levels,
    held_out_cause_figures,
    held_out_level_figures,
)
from recipes.sem.distil import Taught, learn
from recipes.sem.folds import kept_back
from recipes.sem.heads import fit_causes, fit_levels
from recipes.sem.none_of_these import fit_other
from recipes.sem.pretrained import kept_pieces, pretrained, prune
from recipes.sem.quality import measure
from recipes.sem.teachers import learn_emotions
from recipes.sem.tune import Example, train_emotions, train_sentiment
from recipes.sem.turning import fit_turning


def run(
    data: Path,
    out: Path,
    *,
    epochs: float,
    seed: int,
    start: Path | None,
    runs: int,
    folds: bool,
    teachers: bool,
    mpnet: Path | None = None,
) -> None:
    """Train all stages into `out`, calibrate, measure, and write the card.

    With `mpnet`, a folder to download it to, a larger teacher is tuned first, the encoder and its
    heads learn from its answers, and the figures are those of what it did not learn. With
    `teachers` two more encoders, each trained on half of the dialogues, say what half of each
    target is. With `folds`, and without `mpnet`, the emotions are cross-validated as well, on
    three encoders more. The checkpoints, ten times as big as the model, are removed at the end.
    """
    work = out / "checkpoints"
    record = {"seed": seed, "epochs": epochs, "runs": runs, "teachers": teachers}
    record |= {"mpnet": True} if mpnet else {}
    claim(work, {**record, "start": start, **corpora.hashes(data)})
    torch.manual_seed(seed)
    net, texts = pretrained(start)
    texts = prune(net, texts, kept_pieces(texts))
    origin = copy.deepcopy(net.encoder.state_dict())
    rated = affect.emobank(data, texts, "train")
    feeling = [Example(e.text, "affect", e.affect) for e in rated if not affect.calibrates(e)]
    train_sentiment(net, texts, data, feeling, work, seed=seed)
    passes = round(epochs)
    across = []
    if folds and not mpnet:
        across = cross_validate_emotions(
            net,
            origin,
            texts,
            data,
            feeling,
            work,
            epochs=passes,
            seed=seed,
            teachers=teachers,
        )
    seen = [c for c in read_conversations(data, "train") if not kept_back(c.conv_id)]
    taught = None
    if mpnet:
        taught = learn(texts, seen, data, work / "mpnet", folder=mpnet, seed=seed)
        train_emotions(
            net, taught.examples, feeling, work, epochs=passes, seed=seed, runs=runs, name="run"
        )
    else:
        learn_emotions(
            net,
            texts,
            seen,
            feeling,
            work,
            epochs=passes,
            seed=seed,
            runs=runs,
            name="run",
            teachers=teachers,
        )
    rest = finish(net, origin, texts, data, rated, out, seed=seed, told=record, taught=taught)
    figures = [*across, *rest]
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    write_card(out, data, figures)
    shutil.rmtree(work, ignore_errors=True)


def finish(
    net: SemNet,
    origin: Mapping[str, torch.Tensor],
    texts: Texts,
    data: Path,
    rated: Sequence[affect.Rated],
    out: Path,
    *,
    seed: int,
    told: Mapping[str, Any],
    taught: Taught | None = None,
) -> list[dict[str, Any]]:
    """After the encoder: choose, fit the other heads, write the model, and measure it."""
    chosen = choose(net, origin, texts, data)
    causes = corpora.cause_examples(data, texts)
    if taught:
        (scale, shift), cause_figures = held_out_cause_figures(
            net, causes, taught.causes, seed=seed
        )
    else:
        (scale, shift), cause_figures = cross_validate_causes(net, causes, seed=seed)
    fit_causes(net, [*causes, *(taught.causes if taught else [])], seed=seed)
    with torch.no_grad():
        net.cause.weight *= scale
        net.cause.bias.mul_(scale).add_(shift)
    spread = affect.fit_affect(net, rated)
    pushes = affect.fit_pushes(net, texts, affect.sentences(data, rated))
    pairs = corpora.epitome_pairs(data, texts, ("train", "valid"))
    if taught:
        level_figures = held_out_level_figures(net, pairs, taught.pairs, seed=seed)
    else:
        level_figures = cross_validate_levels(net, pairs, out / "checkpoints", seed=seed)
    fit_levels(net, [*pairs, *(taught.pairs if taught else [])], seed=seed)
    other, other_figures = fit_other(net, texts, data, seed=seed)
    gate, bound, gate_figures = fit_turning(net, texts, data, chosen.meta["temperature"])
    meta = {
        "spread": [round(x, 4) for x in spread],
        "pushes": round(pushes, 3),
        "other": round(other, 4),
        "turn": gate,
        "parts": bound,
    }
    save(net, texts, {**chosen.meta, **meta, **told}, out)
    return [
        *measure(out, data, chosen),
        *cause_figures,
        *level_figures,
        *other_figures,
        *gate_figures,
        *(taught.figures if taught else []),
    ]
