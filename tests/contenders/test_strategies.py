"""The registry of prompt strategies: what an entry brings, and that no stored revision changes."""

from __future__ import annotations

import pytest

from empo_demo.contenders import strategies
from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.contenders.strategies import STRATEGIES, Plain, Prepared
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.reading import Reading
from empo_demo.settings import load_settings

PUBLISHED = {
    "base": "61d141cc2c24",
    "aligned": "4b2fcfd43e1a",
    "sft": "750319d32b6a",
    "base+HEF": "5483c5dfb90d",
    "aligned+HEF": "a97ea59efaeb",
    "aligned+HEF2": "5d451b7db55a",
}
"""Revisions of empo-7b as they are stored with votes. A change of these cuts the votes in two."""


class Curt(Plain):
    """A newcomer's strategy without the SEM: one fixed sentence."""

    name = "curt"

    def prepare(self, dialogue: Dialogue, reading: Reading | None, roster: Roster) -> Prepared:
        return Prepared(tuple(dialogue.messages("Use five words.")), guidance="Use five words.")

    def wording(self, *, tiny: bool) -> str:
        return "Use five words."


def test_revisions_stored_with_votes_stay_as_they_are() -> None:
    roster = load_roster(load_settings(preset="empo-7b", quantization="nf4"))
    assert {c.id: c.revision for c in roster.contenders} == PUBLISHED


def test_every_strategy_has_a_wording_of_its_own() -> None:
    wordings = {s.wording(tiny=t) for s in STRATEGIES.values() for t in (False, True)}
    assert len(wordings) == 2 * len(STRATEGIES) - 1, "only the plain one has none, in both forms"
    assert [name for name, s in STRATEGIES.items() if not s.wording(tiny=False)] == ["plain"]


def test_an_entry_in_the_registry_is_all_that_a_newcomer_adds(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STRATEGIES, "curt", Curt())
    path = tmp_path_factory.mktemp("roster") / "roster.toml"
    path.write_text(
        '[[contenders]]\nid = "base"\nbase = "org/m"\n\n'
        '[[contenders]]\nid = "curt"\nbase = "org/m"\nstrategy = "curt"\n'
    )
    roster = load_roster(load_settings(preset=str(path)))
    assert roster["curt"].revision != roster["base"].revision
    assert not roster["curt"].guided and roster["curt"].id_in_round(reading=False) == "curt"
    prepared = strategies.prepare(roster["curt"], Dialogue().plus("user", "Hi."), None, roster)
    assert prepared.messages[0] == {"role": "system", "content": "Use five words."}


def test_a_stored_strategy_that_is_gone_is_not_guided() -> None:
    assert not strategies.is_guided("check") and not strategies.is_guided("of last year")
    assert strategies.is_guided("hef") and Contender("x", "m", strategy="hef-two-step").guided
