"""The SEM's model card, in the Hub's format: what it is, how it was made, and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.sem.corpora import hashes

_HEAD = """---
license: cc-by-nc-4.0
language: en
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
tags: [empathy, emotion, valence, emotion-cause, epitome, hef]
---

# The small empathetic model (SEM)

One encoder of six layers (width 384, {pieces:,} word pieces) with eight heads: the 32 emotions of
EmpatheticDialogues, whether none of them fits, valence and arousal of the last turn, how far each
word moves the valence, a weight per word for what caused the emotion, and the three EPITOME
mechanisms (levels 0 to 2) of a response to a context. One forward pass per text; a later turn of a
dialogue is a row more in it, since its valence is read from that turn alone, and its emotion too:
that one is shown where it parts from the dialogue's. Matrices are stored in 8 bits with a scale per
row. It starts from all-MiniLM-L6-v2 (Apache-2.0), which
is needed for training only.

For research and non-commercial use: it was trained on EmpatheticDialogues (CC BY-NC 4.0), EmoCause
(non-commercial, as its texts), EPITOME (non-commercial academic), EmoBank (CC BY-SA 4.0) and
GoEmotions (CC BY 4.0). It reads English from crowd workers, news and forum posts, is wrong about
half of the time when it must name one of 32 close emotions, and is no clinical instrument: it must
not be used to judge anyone's state of mind.

"""
_METHOD = """## How the figures were measured

The encoder never saw EmpatheticDialogues' validation split, whose writers are not those of the
training split. What is fitted or chosen on it (the emotion head, its penalty and temperature, the
bound of the 90 % set, cause words and the scale of their weights) is fitted on two thirds of its
conversations and measured on the other third, in turn; only the share was chosen on all of it. The
shipped heads are fitted on all three. EPITOME: five folds by seeker post.
"Known writers" are conversations of the training split that were kept back with all of their task:
their writers wrote other dialogues that the encoder was trained on.

"Cross-validated" figures come from three other encoders of the same recipe, over all of ED-train
and ED-valid: each is trained without a third of the dialogues (whole blocks of 400 neighbouring
tasks) and without another twelfth, on which the share, the emotion head, its penalty and
temperature and the bound of the 90 % set are chosen; the third is then read once. Such an encoder
sees 58 % of the dialogues where the shipped one sees 79 %. `--no-folds` leaves them out.

Intervals of the emotions draw blocks of 400 neighbouring tasks, because one writer did many tasks
in a row, and those of top-k are wide enough for *another* set of as many dialogues by other
writers (both sets vary: times the root of 2). Other intervals draw conversations, seeker posts or
documents. The comparison with word norms needs `warriner.csv` (columns Word, V.Mean.Sum) in DIR and
is left out without it.

## How it was made

`python -m recipes.sem --data DIR -o DIR`

1. The vocabulary keeps every piece of English, punctuation and symbols.
2. Sentiment: one pass over GoEmotions' 28 kinds, with two over EmoBank's valence and arousal.
3. Emotions: every listener turn's context and the situation texts of ED-train but a tenth; labels
   smoothed, part of the smoothing towards related emotions; rates fall by layer; EmoBank goes on.
   With `--teachers` (see the settings below) half of each target is the answer of an encoder that
   was trained on the other half of the dialogues; with `--mpnet FOLDER` it is the answer of
   all-mpnet-base-v2, tuned by LoRA to all that the SEM reads, on texts without a label as well.
4. The encoder is averaged with the weights that it started from (WiSE-FT, arXiv 2109.01903) at the
   share with the least calibrated log-loss, and frozen. The emotion head is then fitted anew on
   ED-valid, near the trained one, from the mean state of all tokens and of the last turn's.
5. Cause words from all of EmoCause; their logits are scaled so that a weight is the probability
   that a person would mark the word. EPITOME shares the encoder's first two layers and has the
   other four for itself, fitted on all pairs: each mechanism reads the response where its rationale
   is likeliest. With `--mpnet` the teacher's probabilities for 4,000 situations and 4,000 replies
   of ED-train are learnt as well; then the figures are those of one fold that it did not learn.
6. Valence: ridge regression on the frozen states or the head that was trained with them, whichever
   reads EmoBank's calibration documents (a tenth, not trained on) better; scale and spread come
   from these. How far a word moves it: a linear head on its states, fitted to what the valence
   loses when the word is left out.
7. Whether none of the labels fits: logistic regression on the mean state, from sentences of our own
   (`recipes/sem/none_of_these.txt`) and task talk against EmpatheticDialogues; its threshold flags
   2 % of the contexts that were kept back.
8. Whether the last turn parts from its dialogue: logistic regression on five numbers of the two
   distributions, from contexts that were kept back, with and without another situation as their
   last turn; its bound lets 4 % of the real ones show their own emotion.

"""


def write_card(out: Path, data: Path, figures: Sequence[Mapping[str, Any]]) -> None:
    """Write `README.md` into `out` from its `config.json`, `sem.json`, figures and `notes.md`.

    `notes.md`, if it is there, holds what people found out about this SEM.
    """
    pieces = json.loads((out / "config.json").read_text(encoding="utf8"))["vocab_size"]
    meta = json.loads((out / "sem.json").read_text(encoding="utf8"))
    text = _HEAD.format(pieces=pieces) + "## Figures\n\n" + table(figures) + "\n" + missed(figures)
    notes = out / "notes.md"
    if notes.is_file():
        text += f"\n{notes.read_text(encoding='utf8').strip()}\n"
    text += "\n" + _METHOD + _settings(meta) + _hashes(data)
    (out / "README.md").write_text(text, encoding="utf8")


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a Markdown table, each with n, interval, baseline, ceiling and target."""
    lines = [
        "| figure | value | 95 % interval | n | baseline | ceiling | needed (aim) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures:
        target = "–" if row["needed"] is None else f"{row['needed']:g} ({row['aim']:g})"
        lines.append(
            f"| {row['name']} | {_number(row['value'])} | {_number(row['low'])} to "
            f"{_number(row['high'])} | {row['n']:,} | {_number(row['baseline'])} | "
            f"{_number(row['ceiling'])} | {target} |"
        )
    baselines = (
        "Baselines: the most frequent labels of the training data; random words that are not stop "
        "words; marking every content word; always fully sure (ECE); top-1 (certainty); the "
        "majority level; VADER (valence). Ceiling: what an oracle would reach; for emotions people "
        "agree far less than 100 %."
    )
    return "\n".join([*lines, "", baselines, ""])


def missed(figures: Sequence[Mapping[str, Any]]) -> str:
    """One plain sentence on the needed values that were not reached."""
    names = [
        f"{row['name']} ({_number(row['value'])})" for row in figures if row["reached"] is False
    ]
    if not names:
        return "Every needed value was reached.\n"
    return f"**Not reached:** {'; '.join(names)}.\n"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) > 1.5 else f"{value:.3f}"


def _settings(meta: Mapping[str, Any]) -> str:
    from recipes.sem import heads, tune

    rows = {
        "encoder rate (top layer), sentiment and emotions": (
            f"{tune.SENTIMENT_RATE}, {tune.ENCODER_RATE}"
        ),
        "head rate": tune.HEAD_RATE,
        "rate decay per layer": tune.LAYER_DECAY,
        "passes over EmoBank, sentiment and emotions": tune.RATED_EPOCHS,
        "cause head: rate, epochs": f"{heads.CAUSE_RATE}, {heads.CAUSE_EPOCHS}",
        "EPITOME: layer rate, head rate, epochs, weight of rationales": (
            f"{heads.LAYER_RATE}, {heads.LEVEL_RATE}, {heads.LEVEL_EPOCHS}, {heads.RATIONALE}"
        ),
        **meta,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines, "", ""])


def _hashes(data: Path) -> str:
    lines = [f"| `{name}` | `{digest}` |" for name, digest in hashes(data).items()]
    return "\n".join(["| data | SHA-256 |", "|---|---|", *lines, ""])
