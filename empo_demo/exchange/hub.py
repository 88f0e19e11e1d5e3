"""Pushes to a data set on the Hub: off by default, a day late, and reversible.

Each process appends to one file of its own. A round is marked as pushed only after its commit is
confirmed, so what a restart interrupts is pushed again; readers take the last row of a
`round_id`. Withdrawn rounds are taken out of the data set, whose history is then squashed.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select, update

from empo_demo.errors import StorageError
from empo_demo.exchange.export import rows_of
from empo_demo.votes.keeping import now
from empo_demo.votes.models import Round, Tombstone, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store

if TYPE_CHECKING:
    from empo_demo.settings import Settings

log = logging.getLogger(__name__)
WAIT = timedelta(hours=24)
EVERY_MINUTES = 15
FOLDER = "data"
TOMBSTONES = "tombstones.jsonl"


class Future(Protocol):
    def result(self) -> Any: ...


class Scheduler(Protocol):
    """The part of `huggingface_hub.CommitScheduler` that is used."""

    @property
    def lock(self) -> Any: ...

    def trigger(self) -> Future: ...


class Api(Protocol):
    """The part of `huggingface_hub.HfApi` that is used to take rows out."""

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> Iterable[str]: ...
    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str) -> str: ...
    def upload_file(
        self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str, repo_type: str
    ) -> Any: ...
    def super_squash_history(self, repo_id: str, *, repo_type: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many rounds went out, and how many were taken out."""

    published: int
    withdrawn: int

    def __str__(self) -> str:
        return f"{self.published:,} votes published, {self.withdrawn:,} taken out"


class Outbox:
    """This process's file of votes to be pushed, in a folder that a scheduler uploads."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self.folder = folder
        self.file = folder / f"votes-{uuid.uuid4().hex}.jsonl"

    def push(self, scheduler: Scheduler) -> int:
        """Append what is due, have it committed, then mark it; return how many votes."""
        due = self._due()
        if not due:
            return 0
        with scheduler.lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf8") as file:
                for round_ in due:
                    for row in rows_of("jsonl", round_):
                        file.write(json.dumps(_published(row), ensure_ascii=False) + "\n")
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


def take_out(store: Store, api: Api, repo: str) -> int:
    """Remove withdrawn rounds from the data set and its history; return how many."""
    withdrawn = store.tombstones(published=True)
    if not withdrawn:
        return 0
    for name in list(api.list_repo_files(repo, repo_type="dataset")):
        if name.startswith(f"{FOLDER}/") and name.endswith(".jsonl"):
            lines = Path(api.hf_hub_download(repo, name, repo_type="dataset")).read_text("utf8")
            kept = "".join(
                f"{line}\n" for line in lines.splitlines() if _round_id(line) not in withdrawn
            )
            if kept != lines:
                _upload(api, repo, name, kept)
    said = "".join(f"{json.dumps({'round_id': name})}\n" for name in sorted(store.tombstones()))
    _upload(api, repo, TOMBSTONES, said)
    api.super_squash_history(repo, repo_type="dataset")
    with store.database.write() as session:
        session.execute(
            update(Tombstone).where(Tombstone.round_id.in_(withdrawn)).values(published=False)
        )
    return len(withdrawn)


class Pusher:
    """Pushes of one process: one file, one scheduler, made when the first push is due."""

    def __init__(self, store: Store, repo: str, folder: Path) -> None:
        self._store, self._repo = store, repo
        self._outbox = Outbox(store, folder)
        self._scheduler: Scheduler | None = None

    def push(self) -> Pushed:
        """Push once and wait; raise `StorageError` in plain words where the Hub refuses."""
        return _plain(self._push, self._repo)

    def start(self) -> threading.Thread:
        """Push every quarter of an hour, in a daemon thread; failures are logged and retried."""
        thread = threading.Thread(target=self._run, name="pushes", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                log.info("%s: %s", self._repo, self.push())
            except StorageError as error:
                log.warning("%s", error)
            pause.wait(EVERY_MINUTES * 60)

    def _push(self) -> Pushed:
        from huggingface_hub import CommitScheduler, HfApi

        folder = self._outbox.folder
        folder.mkdir(parents=True, exist_ok=True)
        _scrub(self._store, folder)
        withdrawn = take_out(self._store, HfApi(), self._repo)
        if self._scheduler is None:
            self._scheduler = CommitScheduler(
                repo_id=self._repo, repo_type="dataset", folder_path=folder, path_in_repo=FOLDER,
                every=EVERY_MINUTES,
            )  # fmt: skip
        return Pushed(self._outbox.push(self._scheduler), withdrawn)


def start_pushing(store: Store, settings: Settings) -> Pusher | None:
    """Push in the background where EMPO_HUB_DATASET names a data set; else None."""
    if settings.hub_dataset is None:
        return None
    place = store.database.path
    folder = (place.parent if place else Path.cwd()) / "pushed-votes"
    pusher = Pusher(store, settings.hub_dataset, folder)
    pusher.start()
    return pusher


def _scrub(store: Store, folder: Path) -> None:
    """Take withdrawn rounds out of the local files too; else they would be uploaded again."""
    withdrawn = store.tombstones()
    for path in folder.glob("*.jsonl"):
        lines = path.read_text("utf8").splitlines()
        kept = [line for line in lines if _round_id(line) not in withdrawn]
        if len(kept) != len(lines):
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf8")


def _plain(push: Callable[[], Pushed], repo: str) -> Pushed:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return push()
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(
            f"The votes could not be pushed to {repo} ({first}). They are kept; check the name "
            "and HF_TOKEN, and push again."
        ) from error


def _published(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is published: the voter a hash of a hash, no Hub name, no owner."""
    import hashlib

    voter = hashlib.sha256(f"export {record['round']['voter']}".encode()).hexdigest()
    record["round"] |= {"voter": voter, "owner": None, "lease_until": None}
    return {"round_id": record["round"]["id"], **record}


def _round_id(line: str) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("round_id") if isinstance(found, dict) else None


def _upload(api: Api, repo: str, name: str, text: str) -> None:
    api.upload_file(
        path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo, repo_type="dataset"
    )
