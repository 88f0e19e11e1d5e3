"""The names of models on servers: which one is a contender's, and whether the right one answered.

Servers list a model with or without its owner, with a tag (`gemma3:latest`, `…:free`) or a date
(`gpt-4o-2024-08-06`), and may answer under a longer name than they were asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from empo_demo.engine.protocol import Source

_DATE = re.compile(r"-(\d{4}-\d\d-\d\d|\d\d-\d\d|\d\d-\d{4}|\d{3,4}|\d{6}|\d{8})")


def names_of(contender: Source) -> list[str]:
    """The names that a server may have for a contender's weights."""
    source = contender.adapter or contender.base
    return [source, _last(source), contender.id]


def served_name(contender: Source, models: Sequence[str]) -> str | None:
    """The name in `models` of a contender's weights; None if it is not there.

    The tag `latest` may be left out, and an alias finds the newest of its dated names.
    """
    names = [name for name in names_of(contender) if name]
    by_case = {model.casefold(): model for model in models}
    for name in names:
        if name in models:
            return name
    for name in names:
        for form in (name, f"{name}:latest", name.removesuffix(":latest")):
            if form.casefold() in by_case:
                return by_case[form.casefold()]
    for name in names:
        dated = [m for m in models if m.startswith(name) and _DATE.fullmatch(m[len(name) :])]
        if dated:
            return max(dated)
    return None


def is_same(asked: str, answered: str, models: Collection[str], taken: Collection[str]) -> bool:
    """Whether `answered` may be the full name of the model `asked`.

    `models` are the names that the server lists, `taken` those that it has for contenders. A listed
    name is another model, unless only a tag or a date is added.
    """
    if answered == asked:
        return True
    if answered in taken:
        return False
    owner, name, tag = _parts(asked)
    other_owner, other_name, other_tag = _parts(answered)
    if not other_name.startswith(name) or (tag and other_tag and tag != other_tag):
        return False
    rest = other_name[len(name) :]
    if answered in models and owner != other_owner:
        return False
    if not rest or _DATE.fullmatch(rest):
        return True
    return answered not in models and rest[0] in "-@"


def _last(source: str) -> str:
    return re.split(r"[/\\]", source)[-1]


def _parts(model: str) -> tuple[str, str, str]:
    """(owner or folder, name, tag), in lower case."""
    last = _last(model)
    name, _, tag = last.partition(":")
    return model[: len(model) - len(last)].casefold(), name.casefold(), tag.casefold()
