"""What the SEM reads in the texts of the page. Each text is read once and remembered for a while.

If the SEM fails, the page shows less, and the round goes on.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue, Turn
from empo_demo.empathy.feeling import told
from empo_demo.errors import ArenaError
from empo_demo.votes.models import Side

if TYPE_CHECKING:
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Epitome, Reading

log = logging.getLogger(__name__)
REMEMBERED = 2000
"""Texts whose feeling is kept."""
MOST_SECONDS = 50 * 60
"""How long any text is remembered: one without consent may not stay for more than an hour."""


class Readings:
    """Bound to one arena; `felt` are feelings known from elsewhere, by text."""

    def __init__(self, arena: Arena, felt: Mapping[str, Feeling]) -> None:
        self._arena, self._felt, self._explained = arena, dict(felt), dict(felt)
        self._known = dict(felt)
        self._turn = threading.Lock()
        self._forgets: threading.Timer | None = None
        self._read = functools.lru_cache(maxsize=512)(self._read_anew)
        self._judge = functools.lru_cache(maxsize=512)(self._judge_anew)

    def forget(self) -> None:
        """Forget every text of a visitor."""
        with self._turn:
            self._felt, self._explained = dict(self._known), dict(self._known)
            self._forgets = None
        self._read.cache_clear()
        self._judge.cache_clear()

    def _forget_later(self) -> None:
        with self._turn:
            if self._forgets is None:
                self._forgets = threading.Timer(MOST_SECONDS, self.forget)
                self._forgets.daemon = True
                self._forgets.start()

    def feelings(self, texts: Sequence[str], *, explained: bool = False) -> list[Feeling]:
        """How good each text sounds.

        `explained` measures what each word adds, for a turn and replies that are finished, since it
        costs three to four times as much. What was explained once stays so.
        """
        self._forget_later()
        memory = self._explained if explained else self._felt
        known: dict[str, Any] = {text: memory.get(text) for text in texts}
        wanted = [text for text, feeling in known.items() if feeling is None]
        if wanted:
            read = self._arena.models.feelings(wanted, explained=explained)
            feelings = dict(zip(wanted, read, strict=True))
            known |= feelings
            self._keep(memory, feelings)
        return [known[text] for text in texts]

    def _keep(self, memory: dict[str, Feeling], feelings: Mapping[str, Feeling]) -> None:
        """Remember what was found, and forget what is oldest."""
        with self._turn:
            for text, feeling in feelings.items():
                # While the SEM loads, VADER answers in its place; such values are not kept.
                if feeling.source == "sem":
                    memory[text] = self._felt[text] = feeling
            for store in (self._felt, self._explained):
                while len(store) > REMEMBERED:
                    del store[next(iter(store))]

    def turns(self, dialogue: Dialogue) -> list[Feeling | None]:
        """How good each turn sounds, and a reply after what it answers.

        None where the reading of the person's turn abstains: then nothing is said of its reply.
        """
        turns = dialogue.turns
        feelings: list[Feeling | None] = []
        person: Feeling | None = None
        for i, feeling in enumerate(self.feelings([turn.content for turn in turns])):
            if turns[i].role == "user":
                reading = self.reading(turns[: i + 1])
                person = None if reading and reading.abstains else feeling
                feelings.append(person)
            else:
                feelings.append(told(feeling, person) if person else None)
        return feelings

    def feel(
        self, replies: Mapping[Side, str], dialogue: Dialogue, *, explained: bool = False
    ) -> dict[Side, Feeling]:
        """How it makes one feel to be told each reply to `dialogue`.

        Replies without words are left out, and all where the person's turn could not be read.
        """
        person = self.turns(dialogue)[-1]
        if person is None:
            return {}
        said = {side: text for side, text in replies.items() if text}
        felt = self.feelings(list(said.values()), explained=explained)
        return {side: told(one, person) for side, one in zip(said, felt, strict=True)}

    def reading(self, turns: Sequence[Turn]) -> Reading | None:
        """The emotion and the cause words of the last of `turns`, a user's."""
        self._forget_later()
        try:
            return self._read(tuple(turns))
        except ArenaError:
            return None
        except Exception:
            log.exception("The SEM failed on a turn of the thread")
            return None

    def levels(self, context: str, replies: Mapping[Side, str]) -> dict[Side, Epitome]:
        """EPITOME's levels of both replies; empty where no SEM gives them."""
        self._forget_later()
        try:
            levels = self._judge(context, tuple(replies.values()))
        except LookupError:
            return {}
        except Exception:
            log.exception("The levels of a round could not be read")
            return {}
        return dict(zip(replies, levels, strict=False))

    def _judge_anew(self, context: str, texts: tuple[str, ...]) -> tuple[Epitome, ...]:
        """Raises `LookupError` where no SEM gives levels yet, which is not worth remembering."""
        levels = tuple(self._arena.models.epitome([(context, text) for text in texts]))
        if not levels:
            raise LookupError("no levels")
        return levels

    def _read_anew(self, turns: tuple[Turn, ...]) -> Reading:
        if self._arena.models.status().state == "loading":
            raise ArenaError("The emotion model is loading.")
        return self._arena.analyze(Dialogue(turns))
