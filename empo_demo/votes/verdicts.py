"""The verdicts: what a visitor may say of two replies, and the consequences of each.

This table is the only place that defines a verdict. Buttons and keys, the check of a vote, the
ranking, the exports and all counts read it. A new verdict is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from empo_demo.votes.models import Side

Verdict = str
"""The name of a verdict, a key of `VERDICTS`."""


@dataclass(frozen=True, slots=True)
class VerdictKind:
    """One verdict. `name` is stored and exported.

    `outcome` is what the ranking counts: 1 (a won), -1 (b won), 0 (a draw), or None if the verdict
    does not compare. `labels` are the KTO labels of the sides; a side without a label makes no row.
    `button`, `said` and `noun` are the words on the button, to the voter and in a table.
    """

    name: Verdict
    button: str
    said: str
    noun: str
    outcome: float | None
    labels: Mapping[Side, bool] = field(default_factory=dict)

    @property
    def preferred(self) -> Side | None:
        """The side that the verdict prefers, or None."""
        return {1.0: "a", -1.0: "b"}.get(self.outcome or 0.0)  # type: ignore[return-value]


KINDS = (
    VerdictKind("a", "A is better", "You chose A", "A better", 1.0, {"a": True, "b": False}),
    VerdictKind("tie", "About equal", "You found them about equal", "about equal", 0.0),
    VerdictKind(
        "both_bad", "Both bad", "You found both bad", "both bad", None, {"a": False, "b": False}
    ),
    VerdictKind("b", "B is better", "You chose B", "B better", -1.0, {"a": False, "b": True}),
)
"""All verdicts in the order of their buttons. The keys 1, 2, 3 … press them."""
VERDICTS: dict[Verdict, VerdictKind] = {kind.name: kind for kind in KINDS}
DECISIVE = tuple(kind.name for kind in KINDS if kind.preferred)
"""The verdicts that prefer a side."""
