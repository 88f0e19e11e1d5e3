"""Votes in a data set on the Hub: pushed a day late, taken out again, and restored from there.

Each process appends to one file of its own. A round is marked as pushed only after its commit is
confirmed, so what a restart interrupts is pushed again; readers take the last row of a
`round_id`. Withdrawn rounds are taken out of the data set, whose history is then squashed. An
empty database, as after the restart of a Space, gets back what the data set holds.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import func, select, update

from empo_demo.errors import StorageError
from empo_demo.exchange.export import rows_of
from empo_demo.exchange.records import Imported, import_records
from empo_demo.files import json_lines, parse_json
from empo_demo.votes.keeping import now, published_voter
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
_ID = re.compile(r"[0-9a-f]{32}")
Result = TypeVar("Result")


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
            lines = _read(Path(api.hf_hub_download(repo, name, repo_type="dataset")))
            kept = _without(lines, withdrawn)
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


def pull(store: Store, api: Api, repo: str) -> Imported:
    """Import what the data set holds and the database does not; withdrawn rounds stay away.

    The voters in it are hashes of the stored ones: `Keeping.adopt` gives a returning voter theirs
    back. What is there already is left as it is, so a pull may be repeated.
    """
    names = list(api.list_repo_files(repo, repo_type="dataset"))

    def lines(name: str) -> Iterator[tuple[int, Any]]:
        return json_lines(Path(api.hf_hub_download(repo, name, repo_type="dataset")))

    if TOMBSTONES in names:
        found = (_id_of(value) for _, value in lines(TOMBSTONES))
        store.bury({name for name in found if name is not None})
    rows: dict[str, tuple[str, Any]] = {}
    for name in sorted(names):
        if name.startswith(f"{FOLDER}/") and name.endswith(".jsonl"):
            for number, value in lines(name):
                place = f"{name}, line {number}"
                rows[_id_of(value) or place] = (place, _restored(value))
    return import_records(store, rows.values())


def last_push(store: Store) -> datetime | None:
    """When votes were last pushed. Of restored ones, the earliest time at which they can be."""
    with store.database.read() as session:
        return session.scalar(select(func.max(Round.pushed_at)))


def age_of_push(store: Store, settings: Settings) -> str:
    """A sentence for the page on where the votes are kept beside the database; "" if nowhere."""
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
    """Pushes of one process: one file, one scheduler, made when the first push is due."""

    def __init__(self, store: Store, repo: str, folder: Path) -> None:
        self._store, self._repo = store, repo
        self._outbox = Outbox(store, folder)
        self._scheduler: Scheduler | None = None
        self._turn = threading.Lock()
        self._to_restore = store.is_empty()

    def push(self) -> Pushed:
        """Push once and wait; raise `StorageError` in plain words where the Hub refuses."""
        with self._turn:
            return _plain(self._push, f"The votes could not be pushed to {self._repo}")

    def pull(self) -> Imported:
        """Import what the data set holds; raise `StorageError` where it cannot be read."""
        from huggingface_hub import HfApi

        return _plain(
            lambda: pull(self._store, HfApi(), self._repo),
            f"The votes in {self._repo} could not be read",
        )

    def restore(self) -> None:
        """Fill a database that was empty at the start, once; the next push tries again."""
        if not self._to_restore:
            return
        try:
            log.info("%s: %s", self._repo, self.pull())
            self._to_restore = False
        except StorageError as error:
            log.warning("%s", error)

    def start(self) -> threading.Thread:
        """Push every quarter of an hour, in a daemon thread; failures are logged and retried."""
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
        _scrub(self._store, folder)
        withdrawn = take_out(self._store, HfApi(), self._repo)
        if self._scheduler is None:
            self._scheduler = CommitScheduler(
                repo_id=self._repo, repo_type="dataset", folder_path=folder, path_in_repo=FOLDER,
                every=EVERY_MINUTES,
            )  # fmt: skip
        return Pushed(self._outbox.push(self._scheduler), withdrawn)


def start_pushing(store: Store, settings: Settings) -> Pusher | None:
    """Restore an empty database, then push in the background, where EMPO_HUB_DATASET is set."""
    if settings.hub_dataset is None:
        return None
    place = store.database.path
    folder = (place.parent if place else Path.cwd()) / "pushed-votes"
    pusher = Pusher(store, settings.hub_dataset, folder)
    pusher.restore()
    pusher.start()
    return pusher


def _scrub(store: Store, folder: Path) -> None:
    """Take withdrawn rounds out of the local files too; else they would be uploaded again."""
    withdrawn = store.tombstones()
    for path in folder.glob("*.jsonl"):
        lines = _read(path)
        kept = _without(lines, withdrawn)
        if kept != lines:
            path.write_text(kept, encoding="utf8", errors="surrogateescape")


def _plain(act: Callable[[], Result], trouble: str) -> Result:
    """`act()`; what the Hub or the network says becomes one `StorageError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return act()
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(
            f"{trouble} ({first}). Nothing is lost; check the name and HF_TOKEN, and try again."
        ) from error


def _published(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is published: the voter a hash of a hash, no Hub name, no owner."""
    voter = published_voter(record["round"]["voter"])
    record["round"] |= {"voter": voter, "owner": None, "lease_until": None}
    return {"round_id": record["round"]["id"], **record}


def _restored(value: Any) -> Any:
    """A published row as a record to import, marked as pushed; a broken one as it is."""
    try:
        record = {key: one for key, one in value.items() if key != "round_id"}
        voted = datetime.fromisoformat(record["vote"]["created_at"])
        pushed = (voted + WAIT).isoformat()
        return {**record, "round": {**record["round"], "pushed_at": pushed}}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return value


def _without(lines: str, withdrawn: Container[str]) -> str:
    """The lines of a file but for those of withdrawn rounds; what is no row of ours stays."""
    return "".join(
        f"{line}\n" for line in lines.split("\n") if line and _round_id(line) not in withdrawn
    )


def _read(path: Path) -> str:
    """A file as it is, whoever wrote it: bytes that are no UTF-8 come out as they went in."""
    return path.read_text(encoding="utf8", errors="surrogateescape")


def _round_id(line: str) -> str | None:
    try:
        return _id_of(parse_json(line))
    except ValueError:
        return None


def _id_of(row: Any) -> str | None:
    """The round of a published row or a tombstone; None where it names none."""
    found = row.get("round_id") if isinstance(row, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def _upload(api: Api, repo: str, name: str, text: str) -> None:
    raw = text.encode(errors="surrogateescape")
    api.upload_file(path_or_fileobj=raw, path_in_repo=name, repo_id=repo, repo_type="dataset")
