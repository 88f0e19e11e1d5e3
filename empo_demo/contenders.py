"""Contenders: weights x adapter x prompt strategy, and the roster of those who take part.

A contender's `id` is stable and short; its `revision` names exactly what answered (model id,
adapter hash, strategy, prompt text, quantisation) and is stored with every vote. Imports no model.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from empo_demo.dialogue import SYSTEM_PROMPT
from empo_demo.engine.protocol import Decoding
from empo_demo.errors import SettingsError
from empo_demo.settings import ASSETS, Quantization, Settings

Strategy = Literal["plain", "hef", "hef-two-step"]

PRESETS: dict[str, Path] = {
    "tiny": ASSETS / "contenders" / "tiny.toml",
    "empo-7b": ASSETS / "contenders" / "empo-7b.toml",
}
CHAT_DECODING = Decoding(temperature=0.7, top_p=0.9, repetition_penalty=1.05, max_new_tokens=200)
"""For models brought by EMPO_BASE: chat models write longer than the tiny one."""
UNGUIDED = "~unguided"
"""Behind the id of a guided contender that had to answer without a reading. No id of a roster may
hold a tilde, and no vote of such a side counts for the guided contender."""
MOST_BOOST = 4.0
"""How many times more often than its weight says a contender without votes is drawn."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One who can be drawn for a side. `adapter` is None for the base weights.

    A retrained adapter carries its lineage: `parent` (contender id), `votes` (how many it was
    trained on) and `data_hash` (of its training pairs).
    """

    id: str
    base: str
    adapter: str | None = None
    strategy: Strategy = "plain"
    weight: float = 1.0
    predictions: str | None = None
    label: str = ""
    parent: str | None = None
    revision: str = ""
    votes: int | None = None
    data_hash: str | None = None

    @property
    def guided(self) -> bool:
        """Whether the SEM's guidance enters its prompt."""
        return self.strategy != "plain"

    def id_in_round(self, *, reading: bool) -> str:
        """The id that a round and its vote record: another where the guidance was absent."""
        return f"{self.id}{UNGUIDED}" if self.guided and not reading else self.id


def label_of(contender: str, labels: Mapping[str, str]) -> str:
    """A stored id in words; says where a guided contender had to answer without guidance."""
    known = contender.removesuffix(UNGUIDED)
    label = labels.get(known) or known
    return label if known == contender else f"{label} (without guidance)"


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part, and what they share: the system prompt, decoding, quantisation.

    `hef_top_k` (1 to 32) is how many of the SEM's emotions HEF names first. `tiny` says that the
    models know only the compact guidance of the embedded ones.
    """

    name: str
    contenders: tuple[Contender, ...]
    system_prompt: str = ""
    quantization: Quantization = "nf4"
    decoding: Decoding = field(default_factory=Decoding)
    tiny: bool = False
    hef_top_k: int = 3
    sem: str = "embedded"

    @property
    def recorded(self) -> bool:
        """Whether some replies were recorded, so that only the recorded dialogues can be had."""
        return any(contender.predictions for contender in self.contenders)

    def __getitem__(self, contender_id: str) -> Contender:
        for contender in self.contenders:
            if contender.id == contender_id.removesuffix(UNGUIDED):
                return contender
        known = ", ".join(c.id for c in self.contenders)
        raise SettingsError(f"There is no contender {contender_id!r}; there are: {known}.")

    def pair_weights(self, votes: Mapping[str, int] | None = None) -> dict[tuple[str, str], float]:
        """The share of rounds of each unordered pair of ids; the values sum to 1.

        A pair's share is proportional to the product of its contenders' weights. With `votes`
        (votes so far by contender id) a contender that has fewer than the median of the others
        is drawn more often: the interval of a win rate shrinks as 1/sqrt(votes), so the boost is
        the ratio of the two widths, at most `MOST_BOOST`, and gone when they are equal.
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


def load_roster(settings: Settings) -> Roster:
    """The roster that `settings` name, with revisions.

    EMPO_PRESET chooses it; EMPO_BASE, EMPO_ALIGNED, EMPO_QUANTIZATION and EMPO_SYSTEM_PROMPT
    override it. Raises `SettingsError`, one line, on a roster that could not open a round.
    """
    from empo_demo.revisions import revision
    from empo_demo.roster_file import check_contenders, read_roster

    roster = _recorded(settings) or read_roster(_preset_path(settings.preset))
    roster = _with_own_models(roster, settings)
    roster = replace(
        roster,
        hef_top_k=settings.hef_top_k,
        sem=settings.sem,
        quantization=settings.quantization or roster.quantization,
        system_prompt=settings.system_prompt or roster.system_prompt,
    )
    check_contenders(roster.contenders, where=f"The roster {roster.name!r}")
    revised = tuple(replace(c, revision=revision(c, roster)) for c in roster.contenders)
    return replace(roster, contenders=revised)


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


def _preset_path(preset: str) -> Path:
    if preset in PRESETS:
        return PRESETS[preset]
    path = Path(preset).expanduser()
    if path.suffix != ".toml" or not path.is_file():
        raise SettingsError(
            f"EMPO_PRESET holds {preset!r}; it may hold {', '.join(PRESETS)}, "
            "or the path of an existing TOML file of contenders."
        )
    return path


def _boost(contender_id: str, drawn: list[Contender], votes: Mapping[str, int] | None) -> float:
    if votes is None or len(drawn) < 2:
        return 1.0
    others = median(votes.get(c.id, 0) for c in drawn if c.id != contender_id)
    ratio = math.sqrt((others + 1) / (votes.get(contender_id, 0) + 1))
    return min(max(ratio, 1.0), MOST_BOOST)


def _recorded(settings: Settings) -> Roster | None:
    """The contenders of the predictions file that EMPO_ENGINE names.

    None where it names none, or where a TOML file of EMPO_PRESET says who is recorded.
    """
    from empo_demo.engine.recorded import is_recording, recorded_roster

    if not is_recording(settings.engine):
        return None
    path = Path(settings.engine).expanduser()
    if not path.is_file():
        raise SettingsError(
            f"EMPO_ENGINE holds {settings.engine!r}; it may hold local, the URL of a server, "
            "or the path of an existing predictions file."
        )
    return recorded_roster(path) if settings.preset in PRESETS else None


def _with_own_models(roster: Roster, settings: Settings) -> Roster:
    """`roster` with EMPO_BASE and EMPO_ALIGNED in the place of its base and aligned models.

    An adapter fits only the weights that it was trained on: where EMPO_BASE replaces the embedded
    tiny base, the tiny adapters leave with it. Other rosters keep theirs, since EMPO_BASE may be
    a local copy of the same model.
    """
    if settings.base is None and settings.aligned is None:
        return roster
    from empo_demo.roster_file import resolve_model

    contenders = roster.contenders
    if settings.base is not None:
        own = resolve_model(settings.base, Path.cwd(), "EMPO_BASE")
        contenders = _replace_base(roster, own, keep_aligned=settings.aligned is not None)
    if settings.aligned is not None:
        own = resolve_model(settings.aligned, Path.cwd(), "EMPO_ALIGNED")
        contenders = _replace_aligned(roster, contenders, own)
    if not roster.tiny or settings.base is None:
        return replace(roster, contenders=contenders)
    return replace(
        roster,
        name="own models",
        contenders=contenders,
        tiny=False,
        system_prompt=SYSTEM_PROMPT,
        decoding=CHAT_DECODING,
    )


def _replace_base(roster: Roster, own: str, *, keep_aligned: bool) -> tuple[Contender, ...]:
    first = _named(roster, "base") or roster.contenders[0]
    aligned = _named(roster, "aligned")
    kept = []
    for contender in roster.contenders:
        is_aligned = aligned is not None and contender.adapter == aligned.adapter and keep_aligned
        if roster.tiny and contender.adapter is not None and not is_aligned:
            continue
        kept.append(replace(contender, base=own) if contender.base == first.base else contender)
    return tuple(kept)


def _replace_aligned(
    roster: Roster, contenders: tuple[Contender, ...], own: str
) -> tuple[Contender, ...]:
    from empo_demo.roster_file import is_adapter

    aligned = _named(roster, "aligned")
    if aligned is None:
        raise SettingsError(
            f"EMPO_ALIGNED holds {own!r}, but the roster {roster.name!r} has no contender "
            "'aligned' to replace; add the model to its TOML file instead."
        )
    change = {"adapter": own} if is_adapter(own) else {"base": own, "adapter": None}
    same = (aligned.base, aligned.adapter)
    originals = {c.id: (c.base, c.adapter) for c in roster.contenders}
    return tuple(replace(c, **change) if originals[c.id] == same else c for c in contenders)


def _named(roster: Roster, contender_id: str) -> Contender | None:
    return next((c for c in roster.contenders if c.id == contender_id), None)
