"""Contenders: weights x adapter x prompt strategy, and the roster of those who take part.

A contender's `id` is stable and short. Its `revision` identifies what answered (model id, adapter
hash, strategy, prompt text, quantisation) and is stored with every vote. Imports no model.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Literal

from empo_demo.contenders.strategies import is_guided
from empo_demo.engine.protocol import Decoding, Pair
from empo_demo.errors import SettingsError
from empo_demo.settings import Quantization
from empo_demo.smollm2.package import is_base

Hints = Literal["full", "compact"]
"""The forms of HEF's guidance: `full` for chat models, `compact` for small ones."""

UNGUIDED = "~unguided"
"""Follows the id of a guided contender that had to answer without a reading. No id of a roster may
contain a tilde, so no vote on such a side counts for the guided contender."""
OF_REVISION = "@"
"""Stands between a contender's id and a revision, where other models than the roster's had it."""
MOST_BOOST = 4.0
"""A contender without votes is drawn at most this many times as often as by its weight."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One who can be drawn for a side. `adapter` is None for the base weights.

    A retrained adapter has a lineage: `parent` (contender id), `votes` (the number that it was
    trained on) and `data_hash` (of its training pairs). An `optional` contender takes part only if
    its adapter exists and its weights fit.
    """

    id: str
    base: str
    adapter: str | None = None
    strategy: str = "plain"
    weight: float = 1.0
    predictions: str | None = None
    label: str = ""
    parent: str | None = None
    revision: str = ""
    votes: int | None = None
    data_hash: str | None = None
    optional: bool = False

    @property
    def guided(self) -> bool:
        """Whether its prompt contains the SEM's guidance."""
        return is_guided(self.strategy)

    def id_in_round(self, *, reading: bool) -> str:
        """The id that a round and its vote store. It is another one if the guidance was absent."""
        return f"{self.id}{UNGUIDED}" if self.guided and not reading else self.id


def label_of(contender: str, labels: Mapping[str, str]) -> str:
    """A stored id in words. It says if a guided contender had to answer without guidance, and
    which revision it is if the id is followed by one."""
    earlier, mark, revision = contender.rpartition(OF_REVISION)
    if mark and contender not in labels and earlier.removesuffix(UNGUIDED) in labels:
        return f"{label_of(earlier, labels)} (revision {revision[:7]})"
    known = contender.removesuffix(UNGUIDED)
    label = labels.get(known) or known
    return label if known == contender else f"{label} (without guidance)"


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part, and what they share: the system prompt, decoding, quantisation.

    `hef_top_k` (1 to 32) is how many of the SEM's emotions HEF names first. `hints` is the form of
    HEF's guidance. `tiny` marks the pair that is in the repository as a whole; it knows only the
    compact form.
    """

    name: str
    contenders: tuple[Contender, ...]
    system_prompt: str = ""
    quantization: Quantization = "nf4"
    decoding: Decoding = field(default_factory=Decoding)
    tiny: bool = False
    hints: Hints = "full"
    hef_top_k: int = 3
    sem: str = "embedded"

    @property
    def compact_hints(self) -> bool:
        """Whether HEF's guidance is one short sentence, which small models can follow."""
        return self.tiny or self.hints == "compact"

    @property
    def pair(self) -> Pair:
        """Which pair of this repository it is; "own" if it is none."""
        if self.tiny:
            return "tiny"
        fetched = any(is_base(contender.base) for contender in self.contenders)
        return "smollm2" if fetched else "own"

    @property
    def embedded(self) -> bool:
        """Whether its adapters are in this repository. They fit no other base."""
        return self.pair != "own"

    @property
    def recorded(self) -> bool:
        """Whether some replies were recorded. Then only the recorded dialogues can be answered."""
        return any(contender.predictions for contender in self.contenders)

    def __getitem__(self, contender_id: str) -> Contender:
        for contender in self.contenders:
            if contender.id == contender_id.removesuffix(UNGUIDED):
                return contender
        known = ", ".join(c.id for c in self.contenders)
        raise SettingsError(f"There is no contender {contender_id!r}; there are: {known}.")

    def without(self, left_out: Iterable[str]) -> Roster:
        """The roster of those who take part. Raises `SettingsError` if no pair can be drawn."""
        names = frozenset(left_out)
        staying = tuple(c for c in self.contenders if c.id not in names)
        check_contenders(staying, where=f"The roster {self.name!r}")
        return replace(self, contenders=staying)

    @property
    def revisions(self) -> list[str]:
        """The revisions of all contenders, whose votes count."""
        return [contender.revision for contender in self.contenders]

    def only(self, *contender_ids: str) -> Roster:
        """The roster of contenders that were asked for by name, so that none is optional."""
        named = (self[contender_id] for contender_id in dict.fromkeys(contender_ids))
        return replace(
            self, contenders=tuple(replace(contender, optional=False) for contender in named)
        )

    def pair_weights(self, votes: Mapping[str, int] | None = None) -> dict[tuple[str, str], float]:
        """The share of rounds of each unordered pair of ids; the values sum to 1.

        The share of a pair is proportional to the product of its contenders' weights. With `votes`
        (votes so far by contender id), a contender with fewer votes than the median of the others
        is drawn more often. The interval of a win rate shrinks as 1/sqrt(votes), so the boost is
        the ratio of the two widths, at most `MOST_BOOST`, and 1 when they are equal.
        """
        drawn = [c for c in self.contenders if c.weight > 0]
        boost = {c.id: _boost(c.id, drawn, votes) for c in drawn}
        products = {
            (one.id, other.id): one.weight * boost[one.id] * other.weight * boost[other.id]
            for one, other in itertools.combinations(drawn, 2)
        }
        total = sum(products.values())
        return {pair: product / total for pair, product in products.items()}

    def draw(
        self, rng: random.Random, votes: Mapping[str, int] | None = None
    ) -> tuple[Contender, Contender]:
        """A pair drawn by `pair_weights`, in random order: (side a, side b)."""
        shares = self.pair_weights(votes)
        (pair,) = rng.choices(list(shares), weights=list(shares.values()))
        one, other = rng.sample(pair, 2)
        return self[one], self[other]


def check_contenders(contenders: Sequence[Contender], *, where: str) -> None:
    """Refuse duplicate ids and a list from which no pair can be drawn."""
    ids = Counter(contender.id for contender in contenders)
    for contender_id, times in ids.items():
        if times > 1:
            raise SettingsError(
                f"{where} lists the contender {contender_id!r} {times} times; ids must differ."
            )
    weights = [contender.weight for contender in contenders]
    if len(weights) < 2 or sum(weight > 0 for weight in weights) < 2:
        zero = "the weights sum to zero" if contenders and not any(weights) else "there are fewer"
        raise SettingsError(
            f"{where} must list at least two contenders with a weight above 0, but {zero}; "
            "add a contender or raise a weight."
        )


def as_json(roster: Roster) -> dict[str, Any]:
    """What `python -m empo_demo contenders --json` prints."""
    return {
        "roster": roster.name,
        "quantization": roster.quantization,
        "system_prompt": roster.system_prompt,
        "contenders": [asdict(contender) for contender in roster.contenders],
        "pairs": [
            {"contenders": list(pair), "share": share}
            for pair, share in roster.pair_weights().items()
        ],
    }


def _boost(contender_id: str, drawn: list[Contender], votes: Mapping[str, int] | None) -> float:
    if votes is None or len(drawn) < 2:
        return 1.0
    others = median(votes.get(c.id, 0) for c in drawn if c.id != contender_id)
    ratio = math.sqrt((others + 1) / (votes.get(contender_id, 0) + 1))
    return min(max(ratio, 1.0), MOST_BOOST)
