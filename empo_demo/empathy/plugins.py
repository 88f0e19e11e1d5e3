"""SEMs by name, from the entry-point group `empo_demo.sem`, and the guard around those of others.

An entry point is a function ``(settings, argument) -> SEM``. `EMPO_SEM` holds its name, or
``name:argument``. The SEM of a third party may raise, hang, or return nonsense. So it is put into a
`GuardedSEM`, which turns its faults into `SEMFailure`; then a round goes on without guidance. This
module imports no model.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import Feeling, lexicon_feeling
from empo_demo.empathy.reading import Reading
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import DataError, SEMFailure, SettingsError
from empo_demo.settings import Settings, load_settings

if TYPE_CHECKING:
    from empo_demo.empathy.sem import SEM

GROUP = "empo_demo.sem"
BUILT_IN = {"embedded": "empo_demo.empathy.plugins:embedded"}
"""Known also when the app runs from a folder without package metadata."""

Factory = Callable[[Settings, str], "SEM"]
log = logging.getLogger(__name__)
LIMIT = 2.0
"""The most seconds for one reading."""
FIRST_LIMIT = 60.0
"""The most seconds for the trial reading at start, because models may still be loading then."""
MOST_HANGING = 4
"""When this many readings hang, the SEM is not called any more: Python cannot kill a thread."""
TOLERANCE = 1e-3
"""How much the sum of the probabilities may differ from 1."""
TRIAL = Turn("user", "My best friend moved away last week and I miss her so much.")


def names() -> list[str]:
    """The names that EMPO_SEM may hold."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def load_sem(settings: Settings) -> SEM:
    """The SEM that `EMPO_SEM` names."""
    if settings.sem == "embedded":
        # Our own SEM needs no guard.
        return EmbeddedSEM()
    return load_plugin(settings.sem)


def load_plugin(chosen: Settings | str) -> SEM:
    """The SEM of `EMPO_SEM`, or of a given name, after a trial reading.

    Raises `SettingsError`, one line, if there is none or if it does not work.
    """
    settings = load_settings(sem=chosen) if isinstance(chosen, str) else chosen
    name, _, argument = settings.sem.partition(":")
    factory = _factory(name, settings.sem)
    try:
        sem = factory(settings, argument)
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(
            f"EMPO_SEM holds {settings.sem!r}, but this SEM cannot be loaded: {reason_of(error)}"
        ) from error
    if name == "embedded":
        return sem
    missing = [part for part in ("name", "revision", "read") if not hasattr(sem, part)]
    if missing:
        raise SettingsError(
            f"EMPO_SEM holds {settings.sem!r}, but what it brings is not a SEM: "
            f"it has no {' and no '.join(missing)}."
        )
    guarded = GuardedSEM(sem)
    try:
        guarded.trial()
    except SEMFailure as error:
        raise SettingsError(f"EMPO_SEM holds {settings.sem!r}, but {error}") from error
    return guarded


def embedded(settings: Settings, argument: str) -> SEM:
    """The SEM in `assets/sem`, or in the folder `argument`, as `recipes.sem` makes one."""

    return EmbeddedSEM(Path(argument) if argument else None)


def read_all(sem: SEM, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
    """One reading per dialogue, in batches if the SEM has `read_many`."""
    many: Callable[[Sequence[Sequence[Turn]]], list[Reading]] | None
    many = getattr(sem, "read_many", None)
    return many(dialogues) if many is not None else [sem.read(turns) for turns in dialogues]


def _factory(name: str, given: str) -> Factory:
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    target = EntryPoint(name, BUILT_IN[name], GROUP) if name in BUILT_IN else entries.get(name)
    if target is None:
        raise SettingsError(f"EMPO_SEM holds {given!r}; it may hold {', '.join(names())}.")
    try:
        factory: Factory = target.load()
    except Exception as error:
        raise SettingsError(
            f"EMPO_SEM holds {given!r}, but its plugin cannot be imported: {reason_of(error)}"
        ) from error
    return factory


class GuardedSEM:
    """A SEM that returns a correct answer in time, or raises `SEMFailure`."""

    def __init__(self, sem: SEM, limit: float = LIMIT) -> None:
        self.sem, self.limit = sem, limit
        self.name, self.revision = str(sem.name), str(sem.revision)
        self._hanging: list[threading.Thread] = []

    def trial(self, limit: float = FIRST_LIMIT) -> Reading:
        """Read one sentence of our own, with time to load models."""
        return self._checked([TRIAL], self._timed(lambda: self.sem.read([TRIAL]), limit))

    def read(self, turns: Sequence[Turn]) -> Reading:
        return self._checked(turns, self._timed(lambda: self.sem.read(turns), self.limit))

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        """Like `read` for each dialogue. The time limit holds for their mean."""
        many = getattr(self.sem, "read_many", None)
        if many is None:
            return [self.read(turns) for turns in dialogues]
        readings = self._timed(lambda: list(many(dialogues)), self.limit * max(1, len(dialogues)))
        if not isinstance(readings, list) or len(readings) != len(dialogues):
            raise SEMFailure(f"the SEM {self.name!r} did not answer once for each dialogue.")
        return [
            self._checked(turns, reading)
            for turns, reading in zip(dialogues, readings, strict=True)
        ]

    def _timed(self, work: Callable[[], object], limit: float) -> object:
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise SEMFailure(f"the SEM {self.name!r} hangs; it is not asked any more.")
        answer: list[object] = []
        raised: list[BaseException] = []

        def run() -> None:
            try:
                answer.append(work())
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run, name=f"sem {self.name}", daemon=True)
        thread.start()
        thread.join(limit)
        if raised:
            raise SEMFailure(f"the SEM {self.name!r} raised {reason_of(raised[0])}") from raised[0]
        if not answer:
            self._hanging.append(thread)
            raise SEMFailure(f"the SEM {self.name!r} did not answer within {limit:g} s.")
        return answer[0]

    def _checked(self, turns: Sequence[Turn], reading: object) -> Reading:
        fault = _fault(turns, reading)
        if fault is not None:
            raise SEMFailure(f"the SEM {self.name!r} {fault}.")
        # A plugin need not sort its answer or use our form of its name.
        checked = cast(Reading, reading)
        emotions = tuple(sorted(checked.emotions, key=lambda pair: -pair[1]))
        causes = tuple(sorted(checked.causes, key=lambda cause: cause.start))
        checked = replace(
            checked,
            emotions=emotions,
            causes=causes,
            sem=f"{self.name}@{self.revision}",
            feeling=checked.feeling or lexicon_feeling(_last(turns)),
        )
        try:
            return Reading.from_json(checked.stored())
        except (DataError, ValueError) as error:
            raise SEMFailure(
                f"the SEM {self.name!r} answered with a malformed Reading ({error})."
            ) from None

    def feelings(self, texts: Sequence[str]) -> list[Feeling]:
        """The valence of each text: by the SEM if its answer is correct, else by
        VADER."""
        own = getattr(self.sem, "feelings", None)
        if own is not None:
            try:
                feelings = self._timed(lambda: list(own(texts)), self.limit * max(1, len(texts)))
                if isinstance(feelings, list) and len(feelings) == len(texts):
                    faults = map(_feeling_fault, texts, feelings)
                    if not any(faults):
                        return feelings
            except SEMFailure as error:
                log.warning("%s VADER reads the valence instead.", error)
        return [lexicon_feeling(text) for text in texts]


def _fault(turns: Sequence[Turn], reading: object) -> str | None:
    """What is wrong with a SEM's reading, as the end of a sentence; None if it is correct."""
    if not isinstance(reading, Reading):
        return f"answered with a {type(reading).__name__} instead of a Reading"
    try:
        return (
            _emotion_fault(dict(reading.emotions), len(reading.emotions))
            or _cause_fault(_last(turns), reading)
            or (_feeling_fault(_last(turns), reading.feeling) if reading.feeling else None)
            or (
                None if set(reading.likely) <= set(EMOTIONS) else "named unknown emotions as likely"
            )
        )
    except (TypeError, ValueError, AttributeError) as error:
        return f"answered with a malformed Reading ({reason_of(error)})"


def _emotion_fault(emotions: dict[str, float], count: int) -> str | None:
    unknown = [str(label) for label in emotions if label not in EMOTIONS]
    if unknown:
        return f"named emotions that are none of the 32: {', '.join(unknown[:3])}"
    if len(emotions) != len(EMOTIONS) or count != len(EMOTIONS):
        return f"named {count} emotions; all 32 must be there, each once"
    if not all(math.isfinite(p) and -TOLERANCE <= p <= 1 + TOLERANCE for p in emotions.values()):
        return "gave a probability outside 0 to 1"
    total = math.fsum(emotions.values())
    if abs(total - 1) > TOLERANCE:
        return f"gave probabilities that sum to {total:.3g} instead of 1"
    return None


def _cause_fault(text: str, reading: Reading) -> str | None:
    for cause in reading.causes:
        inside = 0 <= cause.start < cause.end <= len(text)
        if not inside or text[cause.start : cause.end] != cause.text:
            return "named a cause that does not stand in the last user turn"
        if not 0 <= cause.weight <= 1:
            return "gave a cause a weight outside 0 to 1"
    return None


def _feeling_fault(text: str, feeling: Feeling) -> str | None:
    numbers = [feeling.valence, *(n for n in (feeling.spread, feeling.arousal) if n is not None)]
    if not all(math.isfinite(n) and -1 <= n <= 1 for n in numbers):
        return "gave a valence outside -1 to 1"
    for word in feeling.words:
        inside = 0 <= word.start < word.end <= len(text)
        if not inside or text[word.start : word.end] != word.text or not math.isfinite(word.by):
            return "named a word of the valence that does not stand in the text"
    return None


def _last(turns: Sequence[Turn]) -> str:
    return next((turn.content for turn in reversed(turns) if turn.role == "user"), "")


def reason_of(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."
