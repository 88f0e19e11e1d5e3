"""Does a server generate what the same weights generate here? `contenders compare` prints it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from huggingface_hub import try_to_load_from_cache

from empo_demo.contenders.load_roster import load_roster
from empo_demo.engine.loading import decide
from empo_demo.engine.protocol import Decoding, Engine, Failed, Finished, Request, Source
from empo_demo.engine.servers.who_answers import PROMPTS
from empo_demo.errors import EngineError, InvalidInput
from empo_demo.settings import load_settings

_GREEDY = Decoding(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=24)
_SHOWN = 40
"""The characters that are shown of two replies where they part."""


@dataclass(frozen=True)
class Difference:
    """How many of a contender's replies are the same, and where the first other ones part."""

    prompts: int
    same: int
    after: str = ""
    server: str = ""
    here: str = ""

    @classmethod
    def between(cls, server: Sequence[str], here: Sequence[str]) -> Difference:
        pairs = list(zip(server, here, strict=True))
        same = sum(a == b for a, b in pairs)
        for a, b in pairs:
            if a != b:
                chars = (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
                at = next(chars, min(len(a), len(b)))
                parts = (a[max(at - _SHOWN, 0) : at], a[at : at + _SHOWN], b[at : at + _SHOWN])
                return cls(len(pairs), same, *parts)
        return cls(len(pairs), same)

    def __str__(self) -> str:
        words = f"{self.same} of {self.prompts} replies are the same on the server and here"
        if self.same < self.prompts:
            words += (
                f"; one goes on after {self.after!r} with {self.server!r} on the server and with "
                f"{self.here!r} here"
            )
        return words


def compare(*, as_json: bool) -> None:
    """Ask servers and the same weights loaded here the same prompts, and print the difference."""
    settings = load_settings()
    roster = load_roster(settings)
    served = decide(settings, roster)
    if not served.is_served:
        raise InvalidInput("There is no server to compare with; set EMPO_ENGINE to its URL.")
    here = [c for c in served.written if _is_here(c)]
    away = {c.id: "its weights are not here" for c in served.written if c not in here}
    rows: dict[str, Difference] = {}
    if here:
        left_out = served.left_out | away
        local = decide(settings.model_copy(update={"engine": "local"}), roster.without(left_out))
        typer.echo("Loading the models of this machine…", err=True)
        server_engine, local_engine = served.load(), local.load()
        for contender in here:
            theirs, ours = (_greedy(e, contender.id) for e in (server_engine, local_engine))
            rows[contender.id] = Difference.between(theirs, ours)
    if as_json:
        same = {name: asdict(row) for name, row in rows.items()}
        typer.echo(json.dumps({"same_as_here": same, "not_here": away}, ensure_ascii=False))
        return
    for name, words in {**rows, **away}.items():
        typer.echo(f"{name}: {words}.")


def _is_here(contender: Source) -> bool:
    """Whether a contender's model and adapter are folders, or in the cache."""
    sources = {contender.base: "config.json"}
    if contender.adapter:
        sources[contender.adapter] = "adapter_config.json"
    return all(
        Path(source).is_dir() or _is_cached(source, file) for source, file in sources.items()
    )


def _is_cached(source: str, file: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(source, file), str)
    except ValueError:  # a path is no Hub id
        return False


def _greedy(engine: Engine, contender_id: str) -> list[str]:
    """The greedy replies of one contender to the fixed prompts."""
    replies = []
    for prompt in PROMPTS:
        for event in engine.stream([Request("a", contender_id, prompt, _GREEDY)]):
            if isinstance(event, Failed):
                raise EngineError(event.error)
            if isinstance(event, Finished):
                replies.append(event.text)
    return replies
