"""The card of a data set of votes: what is in it, who may use it how, and how to load and train.

A pushed data set has it as its README.md, an exported file as FILE.README.md beside it. The parts
between the marks follow the data at each push; all else may be edited and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from empo_demo import __version__

LICENCE = "cc-by-4.0"
_BEGIN, _END = "<!-- models: written at each push -->", "<!-- end of models -->"
_ROW = re.compile(r"^\| `([^`|]*)` \| `([^`|]*)` \| `([^`|]*)` \|$", re.MULTILINE)


@dataclass(slots=True)
class Contents:
    """What a card says of its rows: (contender, revision, consent) of each reply."""

    replies: set[tuple[str, str, str]] = field(default_factory=set)

    def add(self, contender: str, revision: str, consent: str | None) -> None:
        self.replies.add((_cell(contender), _cell(revision), _cell(consent or "")))

    @classmethod
    def of_records(cls, rows: Iterable[Mapping[str, Any]]) -> Contents:
        """Those of full records, as they are pushed."""
        contents = cls()
        for row in rows:
            for reply in row["replies"]:
                contents.add(reply["contender"], reply["revision"], row["round"]["consent"])
        return contents

    @classmethod
    def of_card(cls, text: str) -> Contents:
        """Those that a card names already."""
        part = text.partition(_BEGIN)[2].partition(_END)[0]
        return cls({(name, revision, consent) for name, revision, consent in _ROW.findall(part)})

    def table(self) -> str:
        rows = "".join(f"| `{a}` | `{b}` | `{c}` |\n" for a, b, c in sorted(self.replies))
        return (
            f"{_BEGIN}\n| contender | revision | version of the consent text |\n|---|---|---|\n"
            f"{rows}{_END}"
        )


FACTS = {
    "round_id": "the round, 32 hex digits; it names a vote for good",
    "voter": "a hash of a hash: groups the votes of one person, identifies nobody",
    "time": "when the vote was cast (ISO 8601, UTC)",
    "consent": "SHA-256 of the consent text that the voter agreed to",
    "app_version": "the version of EmPO Arena",
    "dropped_exchanges": "first exchanges of the dialogue that no model read, for want of room",
}
COLUMNS: dict[str, dict[str, str]] = {
    "trl": {
        "prompt": "the messages that both models read",
        "chosen": "the reply that was preferred, as one message",
        "rejected": "the other reply",
        "chosen_contender, rejected_contender": "who wrote them",
        "chosen_revision, rejected_revision": "with which weights",
        "chosen_side": "on which side the preferred reply stood, a or b",
        "mixed_strategies": "whether one side was guided by the emotion model and the other not",
        **FACTS,
    },
    "kto": {
        "prompt": "the messages that the model read",
        "completion": "its reply, as one message",
        "label": "true if it was preferred; false if the other was, or both were bad",
        "contender": "who wrote it",
        "revision": "with which weights",
        "side": "on which side it stood, a or b",
        "mixed_strategies": "whether one side was guided by the emotion model and the other not",
        **FACTS,
    },
    "csv": {
        **FACTS,
        "dialogue": "the messages before the replies, as JSON",
        "verdict": "a, b, tie or both_bad",
        "chosen": "with which side the dialogue went on",
        "seconds": "from the last word to the vote",
        "fast": "whether that is less than reading takes",
        "comment": "of the voter",
        "ratings": "0 to 100 by side and scale (a_natural, …), as JSON",
        "seed": "of the pair, the sides and the replies",
        "exposure, show_chips, show_plots": "what was shown before the vote",
        "emotion": "that the emotion model read first in the last turn",
        "valence, valence_source": "how good the turn sounds, -1 to 1, and by which model",
        "a_…, b_…": "of each reply: contender, revision, strategy, text, guidance, tokens, "
        "milliseconds, reason of its end, seed",
    },
    "jsonl": {
        "round_id": FACTS["round_id"],
        "round": "dialogue (messages), system_prompt, what the emotion model read, what was shown, "
        "seeds, consent, app_version, and a hash of the voter",
        "vote": "verdict (a, b, tie, both_bad), chosen side, seconds, ratings, comment, time",
        "replies": "two: side, contender, revision, strategy, seed, text, tokens, why it ended",
    },
}
COLUMNS["parquet"] = COLUMNS["csv"]
"""What each column of each format holds."""
_TRAINER = {"kto": ("KTOConfig", "KTOTrainer")}
_PAIRS = """\
def pair(row):
    text = {reply["side"]: reply["text"] for reply in row["replies"]}
    better, worse = ("a", "b") if row["vote"]["verdict"] == "a" else ("b", "a")
    said = row["round"]["system_prompt"]
    system = [{"role": "system", "content": said}] if said else []
    turns = [{key: turn[key] for key in ("role", "content")} for turn in row["round"]["dialogue"]]
    return {
        "prompt": system + turns,
        "chosen": [{"role": "assistant", "content": text[better]}],
        "rejected": [{"role": "assistant", "content": text[worse]}],
    }


decided = votes.filter(lambda row: row["vote"]["verdict"] in ("a", "b"))
rows = decided.map(pair, remove_columns=decided.column_names)
"""
_TABLE_PAIRS = """\
import json


def pair(row):
    better, worse = ("a", "b") if row["verdict"] == "a" else ("b", "a")
    return {
        "prompt": json.loads(row["dialogue"]),
        "chosen": [{"role": "assistant", "content": row[f"{better}_text"]}],
        "rejected": [{"role": "assistant", "content": row[f"{worse}_text"]}],
    }


decided = votes.filter(lambda row: row["verdict"] in ("a", "b"))
rows = decided.map(pair, remove_columns=decided.column_names)
"""
_LOADER = {"csv": "csv", "parquet": "parquet"}


def card(form: str, contents: Contents, *, file: str | None = None) -> str:
    """The card of the exported `file` of a format; without it, that of a pushed data set."""
    columns = "".join(f"| {_names(name)} | {what} |\n" for name, what in COLUMNS[form].items())
    return f"""\
---
license: {LICENCE}
{_CONFIG if file is None else ""}tags: [preference, empathy, dialogue, dpo, trl]
---
# Votes of an EmPO Arena

People wrote what happened to them, two language models answered the same dialogue, and the person
said, blind, which reply was better. {_WHAT[form]} Written by EmPO Arena {__version__}.

## Columns

| column | holds |
|---|---|
{columns}
## Who wrote the replies, and who agreed to what

A revision is a digest of weights and adapter, or the Hub's commit. The consent text of each version
is in `empo_demo/votes/consent.py` of the arena; its SHA-256 is the version.

{contents.table()}

## Licences

- **The texts** (dialogues, replies, votes, comments): CC BY 4.0. Voters agreed to this before they
  wrote.
- **The weights are not in here.** Those that come with the arena are for non-commercial use, since
  they learnt from EmpatheticDialogues (CC BY-NC 4.0), and so is what you train from them; other
  models have licences of their own: see the card of each.

## What is left out, and withdrawn votes

Rounds without consent, with signs of a crisis, with personal data that were noticed, hidden by a
moderator, or made to check attention are left out; e-mail addresses, numbers and the like are
masked. Votes are pseudonymous, not anonymous. What is pushed, or downloaded from the page, was cast
at least 24 hours before.

A person may withdraw a vote at any time. {_WITHDRAWN if file is None else _WITHDRAWN_FILE}

## Load it with `datasets`

```python
from datasets import load_dataset

{_load(form, file)}
```

## Train with TRL

```python
{_train(form)}
```

Split by `voter`, not by row: one person casts many votes. Before you train, see that both replies
of a pair answer the same prompt as your model will read it.
"""


def updated(text: str, contents: Contents) -> str:
    """A pushed data set's card with the models of `contents` beside those that it names already.

    An empty one is written anew; one without the marks was written by somebody else and stays.
    """
    if not text or text == _EARLIER:
        return card("jsonl", contents)
    if _BEGIN not in text or _END not in text:
        return text
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    known = Contents(contents.replies | Contents.of_card(text).replies)
    return f"{head}{known.table()}{tail}"


_CONFIG = "configs:\n- config_name: default\n  data_files: data/*.jsonl\n"
_WHAT = {
    "trl": "Each line is one preference pair.",
    "kto": "Each line is one rated reply.",
    "csv": "Each row is one vote with both replies.",
    "parquet": "Each row is one vote with both replies.",
    "jsonl": "Each line is one vote: the dialogue, two replies, and the verdict.",
}
_WITHDRAWN = """Its row is then taken out, the history of this data set is
squashed, and `tombstones.jsonl` names its `round_id`. Please erase these rounds from your copies,
too: load the data set again before you train, or drop every row that `tombstones.jsonl` names."""
_WITHDRAWN_FILE = """This file knows nothing of votes that were withdrawn after
it was written: export or download it again before you train or publish, and erase older copies."""
_EARLIER = """\
---
license: cc-by-4.0
configs:
- config_name: default
  data_files: data/*.jsonl
---
# Votes of an EmPO Arena

Each line of the files in `data/` is one vote: a dialogue, two replies and which one a person chose.
`tombstones.jsonl` names votes that were withdrawn: please erase them from your copies, too.
"""
"""The card of version 0.1."""


def _cell(text: str) -> str:
    """A text that ends no cell of a table."""
    return re.sub(r"[`|\n]", " ", text)


def _names(columns: str) -> str:
    return ", ".join(f"`{name}`" for name in columns.split(", "))


def _load(form: str, file: str | None) -> str:
    if file is None:
        return 'votes = load_dataset("OWNER/NAME", split="train")'
    return (
        f'votes = load_dataset("{_LOADER.get(form, "json")}", data_files={file!r}, split="train")'
    )


def _train(form: str) -> str:
    config, trainer = _TRAINER.get(form, ("DPOConfig", "DPOTrainer"))
    columns = {"trl": ("prompt", "chosen", "rejected"), "kto": ("prompt", "completion", "label")}
    rows = f"rows = votes.select_columns({list(columns[form])})\n" if form in columns else ""
    rows = rows or (_PAIRS if form == "jsonl" else _TABLE_PAIRS)
    return f"""\
from trl import {config}, {trainer}

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

{rows}
{trainer}(MODEL, args={config}(output_dir="aligned"), train_dataset=rows).train()"""
