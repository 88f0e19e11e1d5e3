"""What a stranger with a script may try on the running page, kept as tests.

The page is the real one on a port of its own, over scripted models; a `Stranger` speaks HTTP to
it and nothing else.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from empo_demo.arena.arena import Arena
from empo_demo.engine.protocol import Event, Request
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

TEXT = "I failed my driving test again."
LONG = 300
"""Words of a reply to whoever asks for more than 100 tokens, as Explore allows."""


class Refused(Exception):
    """The answer was no: `status` of HTTP, or 0 where the function itself refused."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status, self.words = status, words


class PatientEngine(ScriptedEngine):
    """Takes its time with long answers only."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        if requests[0].decoding.max_new_tokens > 100:
            return self._say(requests, [" ".join(["word"] * LONG)] * len(requests))
        return super().stream(requests)


def unpacked(download: httpx.Response) -> dict[str, str]:
    """The files of a download of votes by name: the votes first, then their card."""
    with zipfile.ZipFile(io.BytesIO(download.content)) as archive:
        return {name: archive.read(name).decode("utf8") for name in archive.namelist()}


def votes_of(download: httpx.Response) -> str:
    """What a download says of votes, without its card."""
    return next(iter(unpacked(download).values()))


@dataclass
class Stranger:
    """One client of the page at `url`."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        sent = {**self.headers, **headers}
        return httpx.post(f"{self.url}/gradio_api/{path}", json=body, headers=sent, timeout=60)

    def frames(self, name: str, *values: Any) -> list[Any]:
        """All answers of an endpoint; raises `Refused`."""
        joined = self.post(f"call/{name}", {"data": list(values)})
        if joined.status_code != 200:
            raise Refused(joined.status_code, joined.text)
        where = f"{self.url}/gradio_api/call/{name}/{joined.json()['event_id']}"
        found: list[Any] = []
        with httpx.stream("GET", where, headers=self.headers, timeout=120) as answer:
            event = ""
            for line in answer.iter_lines():
                name_, _, rest = line.partition(": ")
                if name_ == "event":
                    event = rest
                elif name_ == "data" and event == "error":
                    raise Refused(0, rest)
                elif name_ == "data" and event in ("generating", "complete"):
                    data = json.loads(rest)
                    found += data[:1] if data else []
        return found

    def call(self, name: str, *values: Any) -> Any:
        return self.frames(name, *values)[-1]

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/config", headers=self.headers).json()
        return found

    def opened(self, voter: str, text: str = TEXT) -> str:
        """The id of a fresh round of a voter who agreed."""
        consent = self.call("consent")["version"]
        round_id: str = self.call("open_round", voter, [], text, consent)["round_id"]
        return round_id

    def answered(self, voter: str) -> str:
        round_id = self.opened(voter)
        self.frames("stream", voter, round_id)
        return round_id


@dataclass
class Served:
    """A running page; `handler` finds a private handler by its Python name."""

    url: str
    arena: Arena
    engine: PatientEngine
    page: Any

    def handler(self, name: str) -> Any:
        names = {getattr(fn.fn, "__name__", ""): fn for fn in self.page.fns.values()}
        return names[name]


def serve(folder: Path, **settings: Any) -> Iterator[Served]:
    from empo_demo.ui.page import start

    chosen = load_settings(database=f"sqlite:///{folder}/votes.sqlite3", **settings)
    engine = PatientEngine(pause=0.01)
    store = Store.of(chosen)
    arena = Arena(chosen, ROSTER, store, engine=engine, sem=ScriptedSEM())
    page = start(arena, load_lexicon(), quiet=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    yield Served(page.local_url.rstrip("/"), arena, engine, page)
    page.close()
    store.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(
        tmp_path_factory.mktemp("page"), rounds_per_voter=1000, rounds_per_address=1000
    )


@pytest.fixture
def stranger(served: Served) -> Stranger:
    return Stranger(served.url)
