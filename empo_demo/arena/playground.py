"""Questions to the models outside a round: nothing here is blind, stored or a vote.

It imports neither gradio nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from empo_demo.arena import guards, opening
from empo_demo.arena.backend import Backend
from empo_demo.arena.comparison import Comparison, Shown, explore, shown
from empo_demo.arena.rounds import Status
from empo_demo.arena.streaming import withholding
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Engine, Event
from empo_demo.errors import NotAllowed

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster
    from empo_demo.empathy.epitome import Epitome
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Reading
    from empo_demo.empathy.sem import SEM
    from empo_demo.settings import Settings
    from empo_demo.votes.store import Store


class Playground:
    """The engine and the SEM, which may be attached after the start, and what they are asked.

    The store only counts the comparisons of an address against its limits.
    """

    def __init__(
        self, settings: Settings, roster: Roster, store: Store, engine: Engine | None,
        sem: SEM | None,
    ) -> None:  # fmt: skip
        self.settings, self.roster, self.store = settings, roster, store
        self._backend = Backend(engine, sem, tiny=roster.tiny)

    def attach(
        self,
        *,
        engine: Engine | None = None,
        sem: SEM | None = None,
        failure: str | None = None,
    ) -> None:
        """Add models that were loaded after the start, or one sentence on why loading failed."""
        self._backend.attach(engine=engine, sem=sem, failure=failure)

    def status(self) -> Status:
        """Whether the models can answer, with a sentence for the page."""
        return self._backend.status()

    def engine(self) -> Engine:
        """The engine, for comparisons, which are not votes; `NotAllowed` while it loads."""
        engine = self._backend.engine(patience=0.0)
        if engine is None:
            raise NotAllowed("The models are not loaded yet; try again in a moment.")
        return engine

    @property
    def repeatable(self) -> bool:
        """Whether the engine gives the same words again for the same seed; False while it loads."""
        engine = self._backend.engine(patience=0.0)
        return engine is not None and bool(getattr(engine, "repeatable", True))

    def recorded_dialogues(self) -> list[Dialogue]:
        """The dialogues that recorded replies can answer; empty if replies are generated."""
        listed = getattr(self.engine(), "dialogues", None) if self.roster.recorded else None
        return list(listed()) if listed is not None else []

    def explore(
        self, comparison: Comparison, *, address: str | None = None
    ) -> tuple[dict[str, Shown], Iterator[Event]]:
        """Stream a comparison, which is neither blind nor stored; return who is on which side.

        It counts against the limits of the address. Without the SEM, `Shown` says that a guided
        side has no guidance. Raises `HelpFirst` if the dialogue says that someone is in crisis.
        """
        self.heed(guards.said_by_user(comparison.dialogue))
        comparison.checked(self.roster)
        engine, sem = self.engine(), self._backend.sem()
        self.store.admit_explore(address)
        reading, _ = opening.read(sem, comparison.dialogue)
        events = explore(engine, self.roster, comparison, reading)
        return shown(self.roster, comparison, reading), self._giving_way(events)

    def _giving_way(self, events: Iterator[Event]) -> Iterator[Event]:
        """Stop a comparison that uses the engine's only place when a round waits for it.

        As in a round, a reply that could encourage harm is withheld.
        """
        with closing(withholding(events, guards.screen)) as shown_events:  # type: ignore[type-var]
            for event in shown_events:
                yield event
                if self.settings.max_concurrent_rounds == 1 and self.ahead():
                    raise NotAllowed("A visitor's round comes first; compare again in a moment.")

    def ahead(self) -> int:
        """How many rounds are in the engine's queue."""
        return int(getattr(self._backend.engine(patience=0.0), "waiting", 0))

    def heed(self, texts: Sequence[object]) -> None:
        """Raise `HelpFirst` if one of a user's `texts` says that someone is in crisis.

        It comes before every other check, limit and question, and stores nothing.
        """
        guards.check_crisis(texts, self.settings.country)

    def analyze(self, dialogue: Dialogue | str) -> Reading:
        """The SEM's reading of the last user turn (or of a bare text). Nothing is stored.

        Raises `HelpFirst` if the dialogue says that someone is in crisis.
        """
        if isinstance(dialogue, str):
            dialogue = guards.check_dialogue(Dialogue(), dialogue)
        self.heed(guards.said_by_user(dialogue))
        sem = self._backend.sem()
        if sem is None:
            raise NotAllowed("The emotion model is not available; the arena works without it.")
        return sem.read(dialogue.turns)

    def feelings(self, texts: Sequence[str], *, explained: bool = False) -> list[Feeling]:
        """The valence of each text, by the SEM if it is loaded, else by VADER.

        With `explained`, what each word adds is measured and not estimated.
        """
        from empo_demo.empathy.sem import feelings

        return feelings(self._backend.sem(patience=0.0), texts, explained=explained)

    def epitome(self, pairs: Sequence[tuple[str, str]]) -> list[Epitome]:
        """The EPITOME levels of each (context, reply); empty if the SEM has no such head."""
        judge = getattr(self._backend.sem(), "epitome", None)
        return list(judge(pairs)) if judge is not None else []
