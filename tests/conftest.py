"""What every test may use: where the shared data lies, and no network."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, Engine, event, func, select

from empo_demo.arena.arena import Arena
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request
from empo_demo.settings import load_settings
from empo_demo.votes import janitor
from empo_demo.votes.models import Round
from empo_demo.votes.store import Store
from tests import postgres as postgresql

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The pair that is in the repository as a whole: no test may need a download.
os.environ["EMPO_PRESET"] = "tiny"
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_VERSION" in os.environ:
    # Not for the benches that import this module: they measure the machine as it is.
    # The models of the tests are tiny: on a busy machine, threads that wait for each other cost a
    # training of a second more than a minute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Merged copies are kept between starts, but not between test runs.
    os.environ["HF_ASSETS_CACHE"] = tempfile.mkdtemp(prefix="empo-assets-")

# The janitor of a store that an earlier test left open may not come into a later test.
janitor.EVERY_SECONDS = 3600.0

# A busy machine is slow, which is no fault of what is tested.
settings.register_profile("arena", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arena")

MOST_WORKERS = 8
"""Each one may hold a model, a page, a browser and a database server."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process per core; none beside this one for named files, so that one can debug them."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    if all(".py" in argument for argument in config.args):
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first: no process works on one while the others are done."""
    weights: Counter[Path] = Counter()
    for item in items:
        takes_long = any(item.get_closest_marker(name) for name in ("slow", "browser"))
        weights[item.path] += 30 if takes_long else 1
    items.sort(key=lambda item: -weights[item.path])


def pytest_collection_finish() -> None:
    """Spare what was imported from each later search for garbage: a million objects that stay."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_ASSETS_CACHE"], ignore_errors=True)


@event.listens_for(Engine, "engine_connect")
def _spare_the_disk(connection: Connection) -> None:
    """Writing to the disk at once guards against a power cut, which no test makes."""
    raw = connection.connection
    if connection.dialect.name == "sqlite" and raw.info.setdefault("synchronous", True):
        raw.info["synchronous"] = False
        raw.driver_connection.execute("PRAGMA synchronous=OFF")


REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data() -> Path:
    """The folder of the research data, which is no part of the repository."""
    return Path(os.environ.get("EMPO_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The research data, or a skip that says what is missing."""
    folder = shared_data()
    if not (folder / "empathetic_dialogues.valid.jsonl.gz").is_file():
        pytest.skip(f"the research data is not at {folder}; set EMPO_TEST_DATA to its folder")
    return folder


class ScriptedEngine:
    """Says what it was told to: one word per event, both sides in step. No model, no network.

    `enqueue(a, b)` sets the next round's replies; an exception instead of a text fails that side.
    """

    def __init__(self, *, pause: float = 0.0) -> None:
        self.pause = pause
        self.requests: list[list[Request]] = []
        self.closed = 0
        self.dropped = 0
        self._next: list[tuple[str | Exception, ...]] = []

    def enqueue(self, *replies: str | Exception) -> None:
        self._next.append(replies)

    def describe(self) -> dict[str, str]:
        return {"engine": "scripted"}

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.requests.append(list(requests))
        default = ("I am sorry to hear that.", "That must have been hard.")
        replies = self._next.pop(0) if self._next else default
        return self._say(requests, replies)

    def _say(
        self, requests: Sequence[Request], replies: Sequence[str | Exception]
    ) -> Iterator[Event]:
        sides = [request.side for request in requests]
        try:
            words = [[] if isinstance(r, Exception) else _pieces(r) for r in replies]
            for column in itertools.zip_longest(*words):
                time.sleep(self.pause)
                for side, word in zip(sides, column, strict=False):
                    if word:
                        yield Delta(side, word, self.dropped)
            for side, reply in zip(sides, replies, strict=False):
                if isinstance(reply, Exception):
                    yield Failed(side, str(reply))
                else:
                    yield Finished(side, "eos", reply, len(reply.split()), 12.5, self.dropped)
        except GeneratorExit:
            self.closed += 1
            raise


class ScriptedSEM:
    """Hears `disappointed` in everything, caused by the first word."""

    name, revision = "scripted", "1"

    def read(self, turns: Sequence[Turn]) -> Reading:
        rest = [label for label in EMOTIONS if label != "disappointed"]
        emotions = (("disappointed", 0.69), *((label, 0.01) for label in rest))
        word = turns[-1].content.split()[0]
        return Reading(emotions, (Cause(0, len(word), word, 0.8),), "scripted@1", 1.0)


def _pieces(text: str) -> list[str]:
    return [word if i == 0 else f" {word}" for i, word in enumerate(text.split(" ")) if word]


ROSTER = Roster(
    "test",
    (
        Contender("base", "base-weights", label="Base", revision="rev-base-1"),
        Contender("aligned", "base-weights", "adapter", label="Aligned", revision="rev-aligned-1"),
    ),
)


def arena_at(url: str, **options: Any) -> Arena:
    """An arena over the database at `url`, as a start of the app opens it."""
    store = Store.open(url, **options)
    return Arena(
        load_settings(database=url), ROSTER, store, engine=ScriptedEngine(), sem=ScriptedSEM()
    )


@contextmanager
def away(store: Store) -> Iterator[None]:
    """The database cannot be reached meanwhile."""
    path = store.database.path
    assert path is not None
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Server]:
    """A private PostgreSQL server, or a skip where none is installed."""
    yield from postgresql.server()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/both.sqlite3"
    fresh: str = request.getfixturevalue("postgres").new_database()
    return fresh


def ephemeral_rounds(store: Store) -> int:
    """How many stored rounds have no consent and must still be erased."""
    with store.database.read() as session:
        query = select(func.count()).select_from(Round).where(Round.ephemeral.is_(True))
        return session.scalar(query) or 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/votes.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def arena(store: Store, engine: ScriptedEngine) -> Arena:
    """An arena over a fresh database, with models that say what they were told to."""
    settings = load_settings(database=str(store.database.url))
    return Arena(settings, ROSTER, store, engine=engine, sem=ScriptedSEM())
