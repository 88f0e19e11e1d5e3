"""The study `hef`: the effect of the SEM's guidance on the replies, paired and seeded.

Each dialogue is answered without guidance, with the SEM's reading, with the true emotion (upper
bound) and with shuffled emotions (a control that must not help), always with the same seed. Only
dialogues of the reporting fold count. The SEM's encoder saw none of them in training, but its cause
head and the last fit of its emotion head did. A killed run continues where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.contenders.strategies import prepare
from empo_demo.dialogue import Message
from empo_demo.empathy.emotions import INDEX
from empo_demo.engine.protocol import Engine, Request
from empo_demo.errors import DataError
from empo_demo.evaluation.dialogues import Item, read_items
from empo_demo.evaluation.generate import AnswerFile, batches, seed_of
from recipes.common import reply_texts
from recipes.sem.folds import REPORTING, fold_of

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading

Condition = Literal["none", "sem", "true", "shuffled"]
Key = tuple[str, str, str, str, int]
"""What an answer depends on: revision of the contender, SEM, condition, dialogue, seed."""
CONDITIONS: tuple[Condition, ...] = ("none", "sem", "true", "shuffled")
VALID = "empathetic_dialogues.valid.jsonl.gz"
TRAIN = "empathetic_dialogues.train.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Case:
    """One dialogue of known emotion, and the reading that each condition's guidance shows."""

    item: Item
    readings: dict[Condition, Reading | None]

    @property
    def emotion(self) -> str:
        assert self.item.emotion is not None
        return self.item.emotion


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply under one condition, and the probability of the human's reply under it.

    `log_p` is the sum over `tokens` of natural log probabilities; None if the engine cannot score
    given texts.
    """

    contender: str
    revision: str
    condition: Condition
    conv_id: str
    seed: int
    reply: str
    log_p: float | None
    tokens: int
    sem: str

    @property
    def key(self) -> Key:
        return (self.revision, self.sem, self.condition, self.conv_id, self.seed)


def read_cases(
    path: Path, n: int, read_many: Callable[[Sequence[Any]], list[Reading]], seed: int
) -> list[Case]:
    """Up to `n` cases drawn from the reporting fold of `path`, with their readings."""
    if not path.is_file():
        raise DataError(f"There is no {path}; give the folder of {path.name} with --data.")
    known = [
        item
        for item in read_items(path).items
        if item.emotion in INDEX and fold_of(item.conv_id) == REPORTING
    ]
    if not known:
        raise DataError(f"{path} holds no dialogue of the reporting fold with an emotion.")
    # Shuffled and cut, so that a larger n includes the dialogues of a smaller one.
    random.Random(seed).shuffle(known)
    items = known[:n]
    readings = read_many([item.context.turns for item in items])
    return [
        Case(item, readings_of(item, reading, seed))
        for item, reading in zip(items, readings, strict=True)
    ]


def readings_of(item: Item, reading: Reading, seed: int) -> dict[Condition, Reading | None]:
    """What the guidance shows under each condition."""
    truth = item.emotion or ""
    rng = random.Random(f"{seed} {item.conv_id}")
    return {
        "none": None,
        "sem": reading,
        "true": with_first(reading, truth),
        "shuffled": shuffled(reading, truth, rng),
    }


def with_first(reading: Reading, emotion: str) -> Reading:
    """`reading` with `emotion` first: the emotion and the former first one swap probabilities."""
    swapped = dict(reading.emotions)
    top = reading.emotions[0][0]
    swapped[top], swapped[emotion] = swapped[emotion], swapped[top]
    ranked = sorted(swapped.items(), key=lambda pair: (-pair[1], pair[0] != emotion))
    return replace(reading, emotions=tuple(ranked))


def shuffled(reading: Reading, truth: str, rng: random.Random) -> Reading:
    """The same probabilities over shuffled labels. The first label is always wrong."""
    right = {truth, reading.emotions[0][0]}
    labels = [label for label, _ in reading.emotions]
    while labels[0] in right:
        rng.shuffle(labels)
    odds = [probability for _, probability in reading.emotions]
    return replace(reading, emotions=tuple(zip(labels, odds, strict=True)))


@dataclass
class Runner:
    """Answers cases with one engine."""

    engine: Engine
    roster: Roster
    sem: str
    seed: int

    def answer(
        self, contender: Contender, condition: Condition, cases: Sequence[Case]
    ) -> list[Answer]:
        """Generate and score one batch. Raises `EngineError` if a side failed."""
        prompts = [self.messages(contender, condition, case) for case in cases]
        scores = self._scores(contender, prompts, cases)
        replies = self._replies(contender, prompts, cases)
        return [
            Answer(
                contender=contender.id,
                revision=contender.revision,
                condition=condition,
                conv_id=case.item.conv_id,
                seed=self.seed,
                reply=reply.strip(),
                log_p=log_p,
                tokens=tokens,
                sem=self.sem,
            )
            for case, (log_p, tokens), reply in zip(cases, scores, replies, strict=True)
        ]

    def messages(
        self, contender: Contender, condition: Condition, case: Case
    ) -> tuple[Message, ...]:
        guided = replace(contender, strategy="plain" if condition == "none" else "hef")
        return prepare(guided, case.item.context, case.readings[condition], self.roster).messages

    def _scores(
        self,
        contender: Contender,
        prompts: Sequence[tuple[Message, ...]],
        cases: Sequence[Case],
    ) -> list[tuple[float | None, int]]:
        score = getattr(self.engine, "score", None)
        if score is None:
            return [(None, 0)] * len(cases)
        pairs = [(p, case.item.reference) for p, case in zip(prompts, cases, strict=True)]
        return list(score(contender.id, pairs))

    def _replies(
        self,
        contender: Contender,
        prompts: Sequence[tuple[Message, ...]],
        cases: Sequence[Case],
    ) -> list[str]:
        requests = [
            Request(
                side=case.item.conv_id,
                contender=contender.id,
                messages=messages,
                decoding=self.roster.decoding,
                seed=seed_of(self.seed, case.item.conv_id),
                round=case.item.conv_id,
            )
            for messages, case in zip(prompts, cases, strict=True)
        ]
        return reply_texts(self.engine, requests)


def fill(
    runner: Runner,
    contenders: Sequence[Contender],
    cases: Sequence[Case],
    work: Path,
    batch: int,
    conditions: Sequence[Condition] = CONDITIONS,
) -> None:
    """Append the missing answers to the work file, batch by batch."""
    done = read_answers(work)
    jobs = [
        (contender, condition, part)
        for contender in contenders
        for condition in conditions
        for part in batches(
            [
                case
                for case in cases
                if (contender.revision, runner.sem, condition, case.item.conv_id, runner.seed)
                not in done
            ],
            batch,
            lambda case: case.item,
        )
    ]
    _file(work).fill(jobs, lambda job: map(asdict, runner.answer(*job)), "answering, batches")


def read_answers(work: Path) -> dict[Key, Answer]:
    """The answers in a work file. A torn last line of a killed run is removed."""
    return {answer.key: answer for answer in _file(work).rows()}


def _file(work: Path) -> AnswerFile[Answer]:
    return AnswerFile(
        work,
        "contender",
        lambda record: Answer(**record),
        "this is not a work file of the recipe that is running; give another with --work.",
    )
