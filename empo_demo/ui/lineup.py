"""Who takes part, in words: for the header, beside the steps of a round, and in About.

All of it comes from the roster, so it is true for models of one's own, too. Nothing here says who
answers a round.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from empo_demo.ui.serving.middleware import on_space
from empo_demo.ui.texts import Texts

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.contenders.roster import Roster

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", re.I)
"""The number of parameters as a model's name has it: 135M, 0.5B."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Model(NamedTuple):
    """A base model: its name without its size, and its size ("135M"; empty where nobody knows)."""

    name: str
    size: str


def badge(arena: Arena, say: Texts) -> str:
    """What runs, where, and whether it is ready."""
    status = arena.models.status()
    title = "; ".join(f"{key}: {value}" for key, value in status.details.items())
    return (
        f'<span class="badge {status.state}" title="{escape(title or say.own(status.message))}">'
        f"<i></i><span>{escape(runs(arena, say))}"
        f'<span class="state"> · {escape(say(f"badge.{status.state}"))}</span></span></span>'
    )


def runs(arena: Arena, say: Texts) -> str:
    """What runs and where: "SmolLM2 135M, five variants, on this computer"."""
    return say("badge.what", models=_models(arena.roster, say), where=say(_where(arena)))


def note(arena: Arena, say: Texts) -> str:
    """How many meet, and what they are; then what the loading does now, or why another pair is
    served than was meant."""
    status, roster = arena.models.status(), arena.roster
    two = ".two" if len(drawn(roster)) == 2 else ""
    meets = say("steps.drawn.recorded" if roster.recorded else f"steps.drawn{two}")
    sizes = {model.size for model in models_of(roster)}
    size = sizes.pop() if len(sizes) == 1 else ""
    what = say("pair.what", size=size) if size else say("pair.what.any")
    lines = [f"{meets} {what}"]
    if status.note:
        kind = "pair.loading" if status.state == "loading" else "pair.instead"
        lines.append(say(kind, note=say.own(status.note)))
    return "".join(f'<p class="quiet">{escape(line)}</p>' for line in lines)


def taking_part(roster: Roster, say: Texts) -> str:
    """Everybody who takes part, and that two of them meet."""
    names = {one: say.contender(one, roster[one].label) for one in drawn(roster)}
    if len(names) == 2:
        met = say("about.who.two")
    else:
        shares = roster.pair_weights()
        one, other = max(shares, key=lambda pair: shares[pair])
        met = say("about.who.met", n=_number(len(names), say), one=names[one], other=names[other])
    rows = "".join(f"<li>{escape(name)}</li>" for name in names.values())
    return f"<h2>{escape(say('about.who'))}</h2><ul>{rows}</ul><p>{escape(met)}</p>"


def models_of(roster: Roster) -> list[Model]:
    """The base models of a roster, each once, in its order."""
    bases = dict.fromkeys(contender.base for contender in roster.contenders if contender.base)
    return [_model(base, roster) for base in bases]


def drawn(roster: Roster) -> list[str]:
    """The ids of those who can be drawn."""
    return [contender.id for contender in roster.contenders if contender.weight > 0]


def _models(roster: Roster, say: Texts) -> str:
    models, count = models_of(roster), len(drawn(roster))
    if len(models) != 1:
        return say("badge.models", n=_number(count, say))
    name = " ".join(filter(None, models[0]))
    return say("badge.variants", model=name, n=_number(count, say))


def _number(number: int, say: Texts) -> str:
    """A number in words as far as people write it so, then in figures."""
    words = say("number.words").split()
    return words[number - 1] if 1 <= number <= len(words) else str(number)


def _where(arena: Arena) -> str:
    """The key of the words for where the replies come from."""
    if arena.roster.recorded:
        return "badge.recorded"
    if "://" in arena.settings.engine:
        return "badge.server"
    if on_space():
        return "badge.space"
    # Whoever reads a page of another machine has the models on that one.
    here = os.environ.get("GRADIO_SERVER_NAME", _LOOPBACK[0]) in _LOOPBACK
    return "badge.here" if here else "badge.host"


def _model(base: str, roster: Roster) -> Model:
    """A base by its name; the tiny one, whose folder says nothing, by that of its roster."""
    name = Path(base).name
    found = _SIZE.search(name)
    if found is not None:
        size = f"{found[1]}{found[2].upper()}"
        return Model(name[: found.start()].strip("-_. ") or name, size)
    return Model(roster.name.capitalize() if roster.tiny else name, _counted(base))


def _counted(base: str) -> str:
    """The size of a local model by the index of its weights; empty if it has none."""
    for index in _indexes(base):
        weights = index.get("metadata", {}).get("total_parameters", 0)
        if isinstance(weights, int) and weights:
            large = weights >= 1e9
            return f"{weights / 1e9:.1f}B" if large else f"{weights / 1e6:.0f}M"
    return ""


def _indexes(base: str) -> Iterator[dict[str, dict[str, object]]]:
    try:
        for path in Path(base).glob("*.index.json"):
            yield json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return
