"""SEMs by name, from the entry-point group `empo_demo.sem`.

An entry point is a function ``(settings, argument) -> SEM``. `EMPO_SEM` holds its name, or
``name:argument``. The SEM of a third party is put into a `GuardedSEM`, which turns its faults into
`SEMFailure`; then a round goes on without guidance. This module imports no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.dialogue import Turn
from empo_demo.empathy.guarded_sem import GuardedSEM, reason_of
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import SEMFailure, SettingsError
from empo_demo.settings import Settings, load_settings

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading
    from empo_demo.empathy.sem import SEM

GROUP = "empo_demo.sem"
BUILT_IN = {"embedded": "empo_demo.empathy.plugins:embedded"}
"""Known also when the app runs from a folder without package metadata."""

Factory = Callable[[Settings, str], "SEM"]


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
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    target = EntryPoint(name, BUILT_IN[name], GROUP) if name in BUILT_IN else found.get(name)
    if target is None:
        raise SettingsError(f"EMPO_SEM holds {given!r}; it may hold {', '.join(names())}.")
    try:
        factory: Factory = target.load()
    except Exception as error:
        raise SettingsError(
            f"EMPO_SEM holds {given!r}, but its plugin cannot be imported: {reason_of(error)}"
        ) from error
    return factory
