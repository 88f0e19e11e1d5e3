"""The example dialogues, all of our own writing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from empo_demo.dialogue import Dialogue
from empo_demo.settings import ASSETS

REHEARSED = (
    "My best friend moved to another country last week, and the flat feels so quiet without her."
)
"""What the person says in the recorded round of the first screen."""
EXPLORED = "My train was cancelled, so I missed my own farewell dinner."
"""What Explore compares when it is opened. Neither is among the examples: nothing comes twice."""


@dataclass(frozen=True, slots=True)
class Example:
    """`before` are the turns already said, `text` is the user's next one."""

    title: str
    emotion: str
    before: Dialogue
    text: str

    @property
    def whole(self) -> Dialogue:
        """The dialogue that its models answer."""
        return self.before.plus("user", self.text)


def load_examples() -> list[Example]:
    """`assets/examples.json`: title, emotion, and turns that end with the user's."""
    rows = json.loads((ASSETS / "examples.json").read_text(encoding="utf8"))
    examples = []
    for row in rows:
        whole = Dialogue.from_messages(row["turns"])
        examples.append(
            Example(
                row["title"], row["emotion"], Dialogue(whole.turns[:-1]), whole.turns[-1].content
            )
        )
    return examples


@cache
def examples() -> tuple[Example, ...]:
    """All examples, read once."""
    return tuple(load_examples())


def next_example(title: str) -> Example:
    """The one after `title` in the list; the first one after none."""
    known = examples()
    titles = [example.title for example in known]
    return known[(titles.index(title) + 1) % len(known) if title in titles else 0]
