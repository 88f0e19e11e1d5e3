"""Pushes votes to a data set on the Hub one day after they were cast.

Each process appends to its own file. A round is marked as pushed only after its commit is
confirmed, so a push that a restart interrupts is repeated. An empty database, as after the restart
of a Space, is first restored from the data set.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import func, select, update

from empo_demo.errors import StorageError
from empo_demo.exchange.data_set import FOLDER, WAIT, published, pull, scrub, take_out
from empo_demo.exchange.formats import rows_of
from empo_demo.exchange.import_file import Imported
from empo_demo.votes.keeping import now
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store

if TYPE_CHECKING:
    from empo_demo.settings import Settings

log = logging.getLogger(__name__)
EVERY_MINUTES = 15
Result = TypeVar("Result")


class Future(Protocol):
    def result(self) -> Any: ...


class Scheduler(Protocol):
    """The part of `huggingface_hub.CommitScheduler` that is used."""

    @property
    def lock(self) -> Any: ...

    def trigger(self) -> Future: ...


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many rounds were published, and how many were taken out."""

    published: int
    withdrawn: int

    def __str__(self) -> str:
        return f"{self.published:,} votes published, {self.withdrawn:,} taken out"


class Outbox:
    """The file of this process with votes to push, in a folder that a scheduler uploads."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self.folder = folder
        self.file = folder / f"votes-{uuid.uuid4().hex}.jsonl"

    def push(self, scheduler: Scheduler) -> int:
        """Append the votes that are due, wait for the commit, mark them; return their number."""
        due = self._due()
        if not due:
            return 0
        with scheduler.lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf8") as file:
                for round_ in due:
                    for row in rows_of("jsonl", round_):
                        file.write(json.dumps(published(row), ensure_ascii=False) + "\n")
        scheduler.trigger().result()
        ids = [round_.id for round_ in due]
        with self._store.database.write() as session:
            session.execute(update(Round).where(Round.id.in_(ids)).values(pushed_at=now()))
        return len(due)

    def _due(self) -> list[Round]:
        query = (
            select(Round)
            .join(Vote)
            .where(Round.pushed_at.is_(None), Vote.created_at < now() - WAIT)
            .order_by(Vote.id)
            .limit(10_000)
        )
        with self._store.database.read() as session:
            return [round_ for round_ in session.scalars(query) if reason_left_out(round_) is None]


def last_push(store: Store) -> datetime | None:
    """The time of the last push. For restored votes it is the earliest possible time."""
    with store.database.read() as session:
        return session.scalar(select(func.max(Round.pushed_at)))


def age_of_push(store: Store, settings: Settings) -> str:
    """A sentence for the page on the last push; "" if votes are not pushed."""
    if settings.hub_dataset is None:
        return ""
    last = last_push(store)
    if last is None:
        return f"Nothing was pushed to {settings.hub_dataset} yet: votes go there after a day."
    minutes = max(0, int((now() - last).total_seconds() // 60))
    age = f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
    age = f"{minutes // 1440} days" if minutes >= 2880 else age
    return f"The last push to {settings.hub_dataset} was {age} ago; votes go there after a day."


class Pusher:
    """The pushes of one process, with one file and one scheduler, made at the first push."""

    def __init__(self, store: Store, repo: str, folder: Path) -> None:
        self._store, self._repo = store, repo
        self._outbox = Outbox(store, folder)
        self._scheduler: Scheduler | None = None
        self._turn = threading.Lock()
        self._to_restore = store.is_empty()

    def push(self) -> Pushed:
        """Push once and wait. Raises `StorageError` in plain words if the Hub refuses."""
        with self._turn:
            return _plain(self._push, f"The votes could not be pushed to {self._repo}")

    def pull(self) -> Imported:
        """Import the data set. Raises `StorageError` if it cannot be read."""
        from huggingface_hub import HfApi

        return _plain(
            lambda: pull(self._store, HfApi(), self._repo),
            f"The votes in {self._repo} could not be read",
        )

    def restore(self) -> None:
        """Import the data set once if the database was empty at the start; retried on failure."""
        if not self._to_restore:
            return
        try:
            log.info("%s: %s", self._repo, self.pull())
            self._to_restore = False
        except StorageError as error:
            log.warning("%s", error)

    def start(self) -> threading.Thread:
        """Push every quarter of an hour, in a daemon thread. Failures are logged and retried."""
        thread = threading.Thread(target=self._run, name="pushes", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self.restore()
            try:
                log.info("%s: %s", self._repo, self.push())
            except StorageError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("A push failed; the next one is in %d minutes", EVERY_MINUTES)
            pause.wait(EVERY_MINUTES * 60)

    def _push(self) -> Pushed:
        from huggingface_hub import CommitScheduler, HfApi

        folder = self._outbox.folder
        folder.mkdir(parents=True, exist_ok=True)
        scrub(self._store, folder)
        withdrawn = take_out(self._store, HfApi(), self._repo)
        if self._scheduler is None:
            self._scheduler = CommitScheduler(
                repo_id=self._repo, repo_type="dataset", folder_path=folder, path_in_repo=FOLDER,
                every=EVERY_MINUTES,
            )  # fmt: skip
        return Pushed(self._outbox.push(self._scheduler), withdrawn)


def start_pushing(store: Store, settings: Settings) -> Pusher | None:
    """If EMPO_HUB_DATASET is set, restore an empty database and push in the background."""
    if settings.hub_dataset is None:
        return None
    place = store.database.path
    folder = (place.parent if place else Path.cwd()) / "pushed-votes"
    pusher = Pusher(store, settings.hub_dataset, folder)
    pusher.restore()
    pusher.start()
    return pusher


def _plain(act: Callable[[], Result], trouble: str) -> Result:
    """The result of `act()`. An error of Hub or network becomes one `StorageError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return act()
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(
            f"{trouble} ({first}). Nothing is lost; check the name and HF_TOKEN, and try again."
        ) from error
