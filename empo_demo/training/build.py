"""Builds preference pairs, from the dialogue files or from the arena's votes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from empo_demo.training import preferences
from empo_demo.training.corpus import Split, empathetic_file, file_hash, read_conversations


def from_dialogues(
    data: Path, out: Path, *, split: str, draws: int, seed: int, control: str
) -> str:
    """Write the EmPO pairs of a split of EmpatheticDialogues to `out`, with a card."""
    source = empathetic_file(data, cast(Split, split))
    conversations = read_conversations(data, cast(Split, split))
    pairs = preferences.build(conversations, draws=draws, seed=seed, control=control)
    left = sum(c.target is None for c in conversations)
    card = {
        "source": source.name,
        "source_sha256": file_hash(source),
        "opposites": "plutchik",
        "draws": draws,
        "seed": seed,
        "control": control,
        "licence": "CC BY-NC 4.0",
        "dialogues": len(conversations),
        "without_target": left,
    }
    preferences.write(pairs, out, card)
    return (
        f"{out}: {len(pairs):,} pairs of {len(conversations) - left:,} dialogues "
        f"({left:,} without a reply left out); card: {out.with_suffix('.card.json')}."
    )


def from_votes(out: Path, database: str | None) -> str:
    """Write pairs from the votes of a database, like `votes export --format trl`."""
    from empo_demo.exchange.export import export_file
    from empo_demo.settings import load_settings

    return f"{out}: {export_file(load_settings(database=database).database, 'trl', out)}."
