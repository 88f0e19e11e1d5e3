"""A card's replies are the contenders' own, all of them, and replace the ones before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empo_demo.errors import DataError, SettingsError
from recipes.studies.side_by_side import HEADING, PROMPTS, section, write


@pytest.mark.slow
def test_a_card_ends_with_one_row_per_prompt_however_often_it_is_written(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: x\n---\n\n# Card\n", encoding="utf8")
    write(card, ["base", "aligned"])
    first = card.read_text(encoding="utf8")
    write(card, ["base", "aligned"])
    prompts = json.loads(PROMPTS.read_text(encoding="utf8"))
    assert first == card.read_text(encoding="utf8"), "the seeds are fixed"
    assert first.startswith("---\nlicense: x\n---\n\n# Card\n\n## Side by side")
    assert first.count(HEADING) == 1
    assert len(prompts) == 20
    for prompt in prompts:
        assert first.count(f"| {prompt['turns'][-1]['content']} |") == 1


def test_a_reply_cannot_break_the_table() -> None:
    text = section(["base"], [("Hello", {"base": "a | b\n\nc"}), ("Hi", {"base": ""})])
    assert "| Hello | a / b c |" in text and "| Hi | (nothing) |" in text


def test_a_missing_card_and_an_unknown_contender_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model card"):
        write(tmp_path / "none.md", ["base"])
    (tmp_path / "README.md").write_text("x", encoding="utf8")
    with pytest.raises(SettingsError, match="nobody"):
        write(tmp_path / "README.md", ["nobody"])
