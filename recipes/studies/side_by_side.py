"""The last part of a model card: replies of several contenders to the same prompts of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.engine.loading import load_engine
from empo_demo.engine.protocol import Engine, Request
from empo_demo.errors import DataError
from empo_demo.progress import progress
from empo_demo.settings import ASSETS, load_settings
from recipes.common import reply_texts

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster

PROMPTS = ASSETS / "examples.json"
HEADING = "## Side by side"


def write(card: Path, contenders: Sequence[str]) -> None:
    """Replace the card's last part, `Side by side`, by new replies of `contenders`."""
    if not card.is_file():
        raise DataError(f"There is no model card {card}; give the README.md of an adapter.")
    settings = load_settings()
    roster = load_roster(settings)
    for name in contenders:
        roster[name]  # An unknown one is refused before the models load.
    said = replies(load_engine(settings, roster), roster, contenders)
    before = card.read_text(encoding="utf8").partition(HEADING)[0].rstrip()
    card.write_text(f"{before}\n\n{section(contenders, said)}", encoding="utf8")


def replies(
    engine: Engine, roster: Roster, contenders: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """(last user turn, reply by contender) of each prompt. The seed of a prompt is its number."""
    replies = []
    prompts: list[dict[str, Any]] = json.loads(PROMPTS.read_text(encoding="utf8"))
    for seed, prompt in enumerate(progress(prompts, "replies")):
        requests = [
            Request(name, name, tuple(prompt["turns"]), roster.decoding, seed)
            for name in contenders
        ]
        said = dict(zip(contenders, reply_texts(engine, requests), strict=True))
        replies.append((prompt["turns"][-1]["content"], said))
    return replies


def section(contenders: Sequence[str], said: Sequence[tuple[str, dict[str, str]]]) -> str:
    """The part as Markdown: a table with one row per prompt."""
    words = ", ".join(
        f"{name} {sum(len(text[name].split()) for _, text in said) / len(said):.1f}"
        for name in contenders
    )
    rows = [
        f"| {' | '.join(map(_cell, (asked, *(text[name] for name in contenders))))} |"
        for asked, text in said
    ]
    return "\n".join(
        [
            HEADING,
            "",
            f"The {len(said)} example dialogues of this repository, seed = their number, the",
            "arena's decoding and quantisation; as they came. The situations were chosen for the "
            "page on other seeds, so that the replies differ sensibly. Words on average: "
            f"{words}.",
            "",
            f"| the user's last turn | {' | '.join(contenders)} |",
            f"|---|{'---|' * len(contenders)}",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split()) or "(nothing)"
