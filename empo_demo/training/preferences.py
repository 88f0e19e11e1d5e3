"""EmPO's preference pairs: the human listener's turn against one for the polar-opposite emotion.

The target of a dialogue is its last listener turn, and the prompt is all turns before it. The
rejected text is the target of a random dialogue with the opposite emotion (EmPO, arXiv 2406.19071).
As a control it comes from the same or from any emotion, which separates the effect of emotion from
that of topic. The draws are seeded and all used; no dialogue is its own rejected text.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from empo_demo.empathy.emotions import OPPOSITE
from empo_demo.errors import DataError, InvalidInput
from empo_demo.progress import progress
from empo_demo.settings import load_settings
from empo_demo.training.corpus import (
    Conversation,
    Split,
    empathetic_file,
    file_hash,
    read_conversations,
)

Control = Literal["none", "same-emotion", "random"]
CONTROLS: tuple[Control, ...] = ("none", "same-emotion", "random")


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair, with the origin of its texts."""

    prompt: tuple[dict[str, str], ...]
    chosen: str
    rejected: str
    conv_id: str
    emotion: str
    rejected_conv_id: str
    rejected_emotion: str

    def row(self) -> dict[str, Any]:
        """TRL's conversational preference row with explicit prompt, and the origin of its texts."""
        return {
            "prompt": list(self.prompt),
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "conv_id": self.conv_id,
            "emotion": self.emotion,
            "rejected_conv_id": self.rejected_conv_id,
            "rejected_emotion": self.rejected_emotion,
        }


def build(
    conversations: Sequence[Conversation],
    *,
    draws: int = 3,
    seed: int = 0,
    control: str = "none",
    same_emotion: float = 0.0,
) -> list[Pair]:
    """`draws` pairs for each conversation with a target, in the order of the conversations.

    The share `same_emotion` of the rejected texts, seeded, is for the conversation's own emotion:
    right in feeling and wrong in content.

    Rejected texts come from a shuffled deck per emotion, which is shuffled again when it is empty.
    So every conversation of a class is used before any is used again.
    """
    if control not in CONTROLS:
        raise InvalidInput(f"--control is {control!r}; it may be {', '.join(CONTROLS)}.")
    if draws < 1:
        raise InvalidInput(f"--draws is {draws}; it must be at least 1.")
    if not 0 <= same_emotion <= 1:
        raise InvalidInput(f"--same-emotion is {same_emotion:g}; it must be from 0 to 1.")
    usable = [c for c in conversations if c.target is not None]
    decks = _Decks(usable, random.Random(f"{seed} {control}"), control)
    others = _Decks(usable, random.Random(f"{seed} same-emotion"), "same-emotion")
    coin = random.Random(f"{seed} coin")
    return [
        _pair(c, (others if coin.random() < same_emotion else decks).deal(c))
        for c in progress(usable, "pairs")
        for _ in range(draws)
    ]


class _Decks:
    """Shuffled decks of candidates, one per emotion (or one for all)."""

    def __init__(
        self, conversations: Sequence[Conversation], rng: random.Random, control: str
    ) -> None:
        self._rng, self._control = rng, control
        self._members: dict[str, list[Conversation]] = {}
        for conversation in conversations:
            key = "" if control == "random" else conversation.emotion
            self._members.setdefault(key, []).append(conversation)
        self._decks: dict[str, list[Conversation]] = {}

    def deal(self, conversation: Conversation) -> Conversation:
        """The next candidate for `conversation`: never itself, never the same text."""
        key = self._key(conversation.emotion)
        passed: list[Conversation] = []
        for _ in range(2 * len(self._members.get(key, ())) + 1):
            candidate = self._draw(key)
            if candidate is None:
                break
            if candidate.conv_id != conversation.conv_id and _target(candidate) != _target(
                conversation
            ):
                self._decks[key] += passed
                return candidate
            passed.append(candidate)
        raise DataError(
            f"No dialogue of the emotion {key or 'any'!r} can be the rejected side of "
            f"{conversation.conv_id}; the data must hold at least two dialogues of it."
        )

    def _key(self, emotion: str) -> str:
        return {"none": OPPOSITE[emotion], "same-emotion": emotion, "random": ""}[self._control]

    def _draw(self, key: str) -> Conversation | None:
        if not self._decks.get(key):
            deck = list(self._members.get(key, ()))
            self._rng.shuffle(deck)
            self._decks[key] = deck
        return self._decks[key].pop() if self._decks[key] else None


def write(pairs: Sequence[Pair], out: Path, card: dict[str, Any]) -> None:
    """Write `out` (JSONL) and its data card beside it, `out` with the ending `.card.json`."""
    lines = [json.dumps(pair.row(), ensure_ascii=False) for pair in pairs]
    text = "\n".join(lines) + "\n"
    words = [len(p.chosen.split()) for p in pairs], [len(p.rejected.split()) for p in pairs]
    full = {
        **card,
        "pairs": len(pairs),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "words_mean": {"chosen": _mean(words[0]), "rejected": _mean(words[1])},
        "emotions": dict(sorted(Counter(p.emotion for p in pairs).items())),
        "rejected_emotions": dict(sorted(Counter(p.rejected_emotion for p in pairs).items())),
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf8")
        out.with_suffix(".card.json").write_text(json.dumps(full, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.") from None


def _pair(conversation: Conversation, other: Conversation) -> Pair:
    target = conversation.target or 0
    return Pair(
        prompt=conversation.turns[:target],
        chosen=_target(conversation),
        rejected=_target(other),
        conv_id=conversation.conv_id,
        emotion=conversation.emotion,
        rejected_conv_id=other.conv_id,
        rejected_emotion=other.emotion,
    )


def _target(conversation: Conversation) -> str:
    return conversation.turns[conversation.target or 0]["content"]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def from_dialogues(
    data: Path,
    out: Path,
    *,
    split: str,
    draws: int,
    seed: int,
    control: str,
    same_emotion: float = 0.0,
    most: int = 0,
) -> str:
    """Write the EmPO pairs of a split of EmpatheticDialogues to `out`, with a card.

    `most` is the size of a random draw of them; 0 for all.
    """
    source = empathetic_file(data, cast(Split, split))
    conversations = read_conversations(data, cast(Split, split))
    pairs = build(conversations, draws=draws, seed=seed, control=control, same_emotion=same_emotion)
    if 0 < most < len(pairs):
        pairs = random.Random(f"{seed} most").sample(pairs, most)
    left = sum(c.target is None for c in conversations)
    card = {
        "source": source.name,
        "source_sha256": file_hash(source),
        "opposites": "plutchik",
        "draws": draws,
        "seed": seed,
        "control": control,
        "same_emotion": same_emotion,
        "licence": "CC BY-NC 4.0",
        "dialogues": len(conversations),
        "without_target": left,
    }
    write(pairs, out, card)
    return (
        f"{out}: {len(pairs):,} pairs of {len(conversations) - left:,} dialogues "
        f"({left:,} without a reply left out); card: {out.with_suffix('.card.json')}."
    )


def from_votes(out: Path, database: str | None) -> str:
    """Write pairs from the votes of a database, like `votes export --format trl`."""
    from empo_demo.exchange.export import export_file

    return f"{out}: {export_file(load_settings(database=database).database, 'trl', out)}."
