"""The effect of alignment on the pair, into `assets/`: figures and tables, no text of the data.

`assets/results.json` gets the figures of base, fine-tuned and aligned on the first two listener's
turns of the reporting fold, paired, with intervals by dialogue. `assets/studies.json` gets the
judge, the labels, perplexity, the hints and the tells. `assets/results.md` follows from both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.engine.predictions import Prediction, Predictions
from empo_demo.evaluation import report
from empo_demo.evaluation.measure import METRICS
from empo_demo.evaluation.results import RESULTS, ResultsData, evaluate, read_retention
from empo_demo.evaluation.score import count_steps
from empo_demo.evaluation.tools import Feels, Tools
from empo_demo.progress import steps
from empo_demo.settings import load_settings
from recipes.effect import blind, card, measured, tells
from recipes.effect import hints as hinting
from recipes.effect.cases import REPORT, VALID, Case, draw, read_cases
from recipes.effect.embeddings import Embeddings
from recipes.effect.judge import Judge, fit
from recipes.effect.replies import HINTED, PLAIN, Replies, answer
from recipes.studies.hef.effects import perplexity, perplexity_ratio
from recipes.studies.shipped import own_examples, store

COMMAND = "python -m recipes.effect table --data DATA --encoder MPNET --work WORK"
ABOUT = """## SmolLM2-135M-Instruct: base, fine-tuned, aligned

The first two listener's turns of {n:,} dialogues of EmpatheticDialogues' validation split (the fold
on which nothing was chosen), of which no text is in any training: {replies:,} replies of each, by
`{command}`.
Intervals by dialogue. The judge of right and opposite feeling, which is measured below, speaks of
{judged:,} of the places.
"""
ROUNDS = 200
"""In how many rounds the simple rules have to tell base from aligned."""


@dataclass(frozen=True)
class Work:
    """The folder of all that is kept between runs; see `recipes/README.md`."""

    folder: Path

    @property
    def embeddings(self) -> Path:
        return self.folder / "embeddings"

    @property
    def labels(self) -> Path:
        return self.folder / "blind"

    @property
    def retention(self) -> Path:
        return self.folder / "retention.json"


def run(
    data: Path, encoder: Path, work: Work, *, dialogues: int | None, batch: int, hints: int | None
) -> None:
    """Answer what is missing, judge, and write everything. A killed run continues.

    Of `dialogues`, the first turns of so many as `hints` says are also answered with hints.
    """
    everything = read_cases(data / VALID, REPORT)
    cases, few = draw(everything, dialogues), draw(everything, hints)
    replies = answer(cases, work.folder, contenders=PLAIN, hinted=(), batch=batch)
    guided = (
        answer(few, work.folder, contenders=HINTED, hinted=HINTED, batch=batch) if few else None
    )
    judge = fit(data, Embeddings(encoder, work.embeddings))
    settings = load_settings()
    tools = Tools(settings, judge=of_predictions(judge, cases))
    figures = _figures(cases, replies, tools)
    kept = read_retention(work.retention) if work.retention.exists() else {}
    # Replies to our own dialogues are kept by name, so each alignment has a folder of its own.
    examples = work.folder / "examples" / load_roster(settings)["aligned"].revision
    shown = own_examples(PLAIN, examples, replace(tools, judge=None))
    stored = replace(figures, examples=shown, retention=kept)
    store(stored, RESULTS)
    card.write(stored)
    found = [judge_study(judge, cases), *labels_studies(data, judge, work.labels)]
    found.append(perplexity_study(replies))
    if guided is not None:
        found.append(hints_study(few, guided, judge, tools))
    put_studies([*found, tells_study(cases, replies)], report.STUDIES)
    report.write_shipped(report.MARKDOWN)


def of_predictions(
    judge: Judge, cases: Sequence[Case]
) -> Callable[[Predictions], Sequence[Feels | None]]:
    """The judge for files whose rows are `cases`."""
    return lambda predictions: judge.verdicts(cases, predictions.responses)


def predictions(name: str, cases: Sequence[Case], texts: Sequence[str]) -> Predictions:
    """The replies of one contender, as `score` takes them; rows of one dialogue belong together."""
    rows = tuple(
        Prediction(
            context=tuple(turn.content for turn in case.item.context.turns),
            user=case.item.context.turns[-1].content,
            reference=case.item.reference,
            response=text,
            emotion=case.emotion,
            dialogue=case.conv_id,
        )
        for case, text in zip(cases, texts, strict=True)
    )
    return Predictions(name, Path(name), rows)


def _figures(cases: Sequence[Case], replies: Replies, tools: Tools) -> ResultsData:
    files = [predictions(name, cases, replies.texts(name)) for name in PLAIN]
    with steps(count_steps([*files, None, None], METRICS)) as begin:
        found = evaluate(files, list(METRICS), tools, begin)
    about = ABOUT.format(
        n=len({case.conv_id for case in cases}),
        replies=len(cases),
        judged=len(cases) - found.systems["base"]["excluded"].get("feeling.right", 0),
        command=COMMAND,
    )
    return replace(found, about=about)


def judge_study(judge: Judge, cases: Sequence[Case]) -> dict[str, Any]:
    shares = measured.on_people(judge, cases)
    clear = shares.pop("cases")["clear"]
    spoken = [_spoken(share) for share in shares.values()]
    rows = [
        [name, *(str(one[kind]) for kind in ("right", "opposite", "unsure")), right]
        for (name, one), right in zip(shares.items(), spoken, strict=True)
    ]
    return {
        "title": "The judge of feeling, measured on people",
        "command": COMMAND,
        "text": "Does a reply treat good news as good and bad news as bad? The judge adds the "
        "log-odds of two logistic regressions on listeners' turns of ED-train (words; MPNet's "
        "sentence embeddings), has no part in the SEM or in DPO's pairs beyond the same contrast, "
        "and abstains below a threshold that the other folds gave. It speaks of places where the "
        "label of the dialogue and a regression on the person's own words agree: "
        f"{clear} of those with a good or bad emotion (n = {clear.n:,}). Fold 2 of ED-valid.",
        "columns": ["replies", "right", "opposite", "abstains", "right where it speaks"],
        "rows": rows,
        "reading": "People's replies should be right, people's replies to news of the other kind "
        "opposite. What is missing is the judge's error, and people who joke, ask, or turn the "
        "subject.",
    }


def _spoken(shares: dict[str, measured.Share]) -> str:
    right, opposite = shares["right"].value, shares["opposite"].value
    return f"{right / (right + opposite):.3f}" if right + opposite else "–"


def labels_studies(data: Path, judge: Judge, folder: Path) -> list[dict[str, Any]]:
    """The study of the labels in `folder`, if somebody has labelled."""
    if not blind.is_labelled(folder):
        return []
    return [labels_study(judge, read_cases(data / VALID), blind.read(folder))]


def labels_study(
    judge: Judge, cases: Sequence[Case], labels: Sequence[blind.Labelled]
) -> dict[str, Any]:
    found = measured.on_labels(judge, cases, labels)
    models = measured.by_model(labels)
    table = found["table"]
    rows = [
        [label, *(str(table[label][kind]) for kind in ("right", "opposite", "unsure"))]
        + [str(model[label]) for model in models.values()]
        for label in blind.LABELS
    ]
    return {
        "title": f"{found['n']} model replies labelled blind",
        "command": "python -m recipes.effect blind --data DATA --work WORK",
        "text": "Somebody who did not make the judge labelled replies of the three models, hidden "
        "and shuffled, each to another situation. Left: how often the judge said what; right: the "
        "share of each label by model, which needs no judge.",
        "columns": ["label", "judge: right", "judge: opposite", "judge abstains", *models],
        "rows": rows,
        "reading": f"Where the judge speaks it agrees with the label in {found['agree']} "
        f"(n = {found['agree'].n}); where the label is right or opposite, in "
        f"{found['agree, both decided']} (n = {found['agree, both decided'].n}).",
    }


def perplexity_study(replies: Replies, seed: int = 0) -> dict[str, Any]:
    """How probable people's own next turns are under each model."""
    rows = []
    base = replies.found["base", "none"]
    for name in PLAIN:
        answers = replies.found[name, "none"]
        value, ratio = perplexity(answers, seed), perplexity_ratio(base, answers, seed)
        if value is None or ratio is None:
            continue
        rows.append(
            [
                name,
                f"{value['value']:.2f} [{value['interval'][0]:.2f}, {value['interval'][1]:.2f}]",
                f"{ratio['ratio']:.3f} [{ratio['interval'][0]:.3f}, {ratio['interval'][1]:.3f}]",
            ]
        )
    return {
        "title": "Perplexity of people's next turn",
        "command": COMMAND,
        "text": "How probable each model finds what the listener in the data said, per token; "
        "intervals by dialogue.",
        "columns": ["model", "perplexity", "divided by the base's"],
        "rows": rows,
        "reading": "Lower is nearer to how people reply.",
    }


def hints_study(
    cases: Sequence[Case], replies: Replies, judge: Judge, tools: Tools
) -> dict[str, Any]:
    def reactions(of: Sequence[Case], texts: Sequence[str]) -> list[float]:
        turns = [case.item.context.turns[-1].content for case in of]
        levels = tools.epitome_levels(list(zip(turns, texts, strict=True)))
        return [float(level["er"]) for level in levels]

    first = sum(case.turn == 1 for case in cases)
    return {
        "title": "The hints: the SEM's, the true emotion, shuffled",
        "command": COMMAND,
        "text": f"First listener's turns, n = {first}; the same seeds in all conditions. A star: "
        "the paired difference to no hint stands (Holm over the table; perplexity: the interval "
        "of the ratio holds no 1).",
        "columns": hinting.HEADINGS,
        "rows": hinting.rows(cases, replies, hinting.Read(judge.verdicts, reactions), HINTED),
        "reading": "The true emotion is the upper bound; a shuffled one must not help.",
    }


def tells_study(cases: Sequence[Case], replies: Replies) -> dict[str, Any]:
    places = [i for i, case in enumerate(cases) if case.turn == 1][:ROUNDS]
    base, aligned = (
        [texts[i] for i in places] for texts in (replies.texts("base"), replies.texts("aligned"))
    )
    found = tells.measure(base, aligned)
    return {
        "title": "Can a voter tell who is who by simple rules?",
        "command": COMMAND,
        "text": f"In {found.rounds} rounds each rule names the reply that it takes for the aligned "
        "one's; cross-validated over rounds, chance .5.",
        "columns": ["rule", "accuracy"],
        "rows": tells.rows(found),
        "reading": "Names and machine's phrases in these replies: "
        + tells.disclosures(found.disclosed)
        + " What else differs is what alignment changed; a voter who has learnt it votes for a "
        "style, which is why attention checks and intervals by voter stand on the Board.",
    }


def put_studies(new: Sequence[dict[str, Any]], path: Path) -> None:
    """Put the studies first, in place of those with the same beginning of the title."""
    fresh = {_subject(study) for study in new}
    old = [one for one in report.read_studies(path) if _subject(one) not in fresh]
    text = json.dumps([*new, *old], ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf8")


def _subject(study: dict[str, Any]) -> str:
    """The title without figures, so that a new number of labels replaces the old study."""
    return "".join(c for c in study["title"] if not c.isdigit()).strip()
