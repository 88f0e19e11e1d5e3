"""A data set speaks for itself: its card names what it holds, and its recipes work as written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.exchange.data_card import COLUMNS, Contents, card, updated
from empo_demo.exchange.export import card_of, export_file
from empo_demo.exchange.formats import FORMATS
from empo_demo.exchange.hub import Pusher
from empo_demo.settings import ASSETS
from empo_demo.votes.consent import VERSION
from tests.conftest import arena_at
from tests.exchange.conftest import age, cast
from tests.hub import Hub

REPO = "owner/votes"
FILES = {"trl": "x.jsonl", "kto": "x.jsonl", "csv": "x.csv", "parquet": "x.pq", "jsonl": "x.jsonl"}

SMALL = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": str(ASSETS / "tiny" / "base"),
    'output_dir="aligned"': 'output_dir="aligned", max_steps=1, use_cpu=True, report_to="none"',
}
"""One step of a tiny model, for a card's recipe."""


@pytest.fixture
def voted(arena: Arena, engine: Any) -> Arena:
    voter, consent = arena.new_voter(), arena.consent_text().version
    for number, verdict in enumerate(("a", "b", "tie", "both_bad")):
        engine.enqueue(f"That is hard, {number}.", f"Oh no. What happened, {number}?")
        opened = arena.open_round(voter, Dialogue(), f"It rained, {number}.", consent=consent)
        list(arena.stream(voter, opened.round_id))
        arena.vote(voter, opened.round_id, verdict, ratings={"a_natural": 80} if number else None)
    return arena


def blocks(text: str) -> str:
    """The Python of a card, in order."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_has_a_card_that_names_its_columns_models_and_consent(
    voted: Arena, tmp_path: Path, form: str
) -> None:
    output = tmp_path / FILES[form]
    export_file(voted.settings.database, form, output)
    said = card_of(output).read_text(encoding="utf8")
    assert said.startswith("---\nlicense: cc-by-4.0\n") and VERSION in said
    assert all(f"`{one.id}` | `{one.revision}`" in said for one in voted.roster.contenders)
    assert "CC BY-NC 4.0" in said and "export or download it again" in said
    named = {name for names in COLUMNS[form] for name in names.split(", ")}
    if form in ("trl", "kto", "jsonl"):
        rows = [json.loads(line) for line in output.read_text(encoding="utf8").splitlines()]
        assert {key for row in rows for key in row} - {"round_id"} == named - {"round_id"}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_card_loads_and_trains_as_it_is_written(
    voted: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    output = Path(FILES[form])
    export_file(voted.settings.database, form, output)
    code = blocks(card_of(output).read_text(encoding="utf8"))
    for old, new in SMALL.items():
        assert old in code, old
        code = code.replace(old, new)
    done: dict[str, Any] = {"__name__": "card"}
    exec(compile(code, "card", "exec"), done)
    assert len(done["votes"]) == {"trl": 2, "kto": 6}.get(form, 4)
    assert len(done["rows"]) == {"kto": 6}.get(form, 2)


def test_a_pushed_data_set_has_a_card_that_follows_its_models(url: str, hub: Hub) -> None:
    arena = arena_at(url)
    voter = arena.new_voter()
    cast(arena, voter)
    age(arena, 25)
    Pusher(arena.store, REPO).push()
    files = hub.repositories[f"dataset/{REPO}"].files
    said = files["README.md"].decode()
    assert "data_files: data/*.jsonl" in said and "tombstones.jsonl" in said and VERSION in said
    assert all(f"`{one.id}` | `{one.revision}`" in said for one in arena.roster.contenders)
    assert 'load_dataset("OWNER/NAME"' in said
    files["README.md"] = said.replace("# Votes of an EmPO Arena", "# Our votes").encode()
    cast(arena, voter)
    age(arena, 25)
    Pusher(arena.store, REPO).push()
    assert "# Our votes" in hub.repositories[f"dataset/{REPO}"].files["README.md"].decode()


def test_a_card_keeps_what_was_edited_and_every_model_that_it_named() -> None:
    old, new = Contents(), Contents()
    old.add("base", "r1", "c1")
    new.add("aligned|`", "r2", None)
    text = card("jsonl", old).replace("# Votes", "# Our votes")
    both = updated(text, new)
    assert "# Our votes" in both and "| `base` | `r1` | `c1` |" in both
    assert "| `aligned  ` | `r2` | `` |" in both and updated(both, new) == both
    assert updated("A card of our own.", new) == "A card of our own."
    assert "`base`" in updated("", old)
