"""A data set of votes on the Hub: read at one commit, and changed from that commit only.

Whoever changes it builds the change from what they read. If another commit came between, the Hub
refuses the change, and it is built anew from the newest commit. So of two processes that change it
at once, one sees what the other did. Nothing that is read stays on the disk.

A row is one line of JSON that begins with the id of its round. It stands in the file of the day on
which the vote was cast, `data/votes-2026-11-30.jsonl` (or `…-2.jsonl` when that is full), so that
whoever adds it again finds it. Files of other names, as earlier versions made them, are searched
too. `tombstones.jsonl` names the withdrawn rounds. Functions return files as name and new text.

`repeat` exchanges votes with it in the background, sooner when there is something urgent.
"""

from __future__ import annotations

import json
import logging
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from empo_demo.errors import StorageError
from empo_demo.exchange import data_card
from empo_demo.exchange.data_card import Contents
from empo_demo.files import parse_json
from empo_demo.votes.models import published_voter

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo

Result = TypeVar("Result")
TRIES = 6
"""How often a change is built anew because another commit came first."""
CHANGED_MEANWHILE = (409, 412)
"""The Hub's answers to a commit whose parent is no longer the newest one."""


class Snapshot:
    """The files of one commit. A file is downloaded into `folder` when it is first read."""

    def __init__(self, api: HfApi, repo: str, head: str, names: list[str], folder: Path) -> None:
        self.head, self.names = head, frozenset(names)
        self._api, self._repo, self._folder = api, repo, folder
        self._texts: dict[str, str] = {}

    def text(self, name: str) -> str:
        """The text of a file, "" if there is none. Bytes that are not UTF-8 survive a change."""
        if name not in self.names:
            return ""
        if name not in self._texts:
            place = self._api.hf_hub_download(
                self._repo, name, repo_type="dataset", revision=self.head, local_dir=self._folder
            )
            self._texts[name] = Path(place).read_bytes().decode("utf8", "surrogateescape")
        return self._texts[name]


class DataSet:
    """The repository `repo`, which is made at the first change if it does not exist.

    With `private` it is made private, and one that everybody can read is refused.
    """

    def __init__(self, repo: str, *, private: bool = False) -> None:
        from huggingface_hub import HfApi

        self.repo = repo
        self._api = HfApi()
        self._private = private

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """The newest commit; its files are gone from the disk at the end."""
        with tempfile.TemporaryDirectory(prefix="data-set-") as folder:
            yield self._snapshot(self._info(), Path(folder))

    def change(self, message: str, make: Callable[[Snapshot], Mapping[str, str]]) -> None:
        """Commit the files that `make` returns as name and new text; "" deletes a file.

        `make` is called again, with a newer snapshot, whenever another commit came first. It must
        ask the database itself, so that it sees what was withdrawn before that commit.
        """
        from huggingface_hub.errors import HfHubHTTPError

        for tries_left in reversed(range(TRIES)):
            try:
                with tempfile.TemporaryDirectory(prefix="data-set-") as folder:
                    there = self._snapshot(self._info(make_it=True), Path(folder))
                    self._commit(message, there, make(there))
                return
            except HfHubHTTPError as error:
                if error.response.status_code not in CHANGED_MEANWHILE or not tries_left:
                    raise
            time.sleep(random.uniform(0.05, 0.5) * (TRIES - tries_left))

    def squash(self, message: str) -> None:
        """Make the newest commit the only one, so that no earlier state can be read any more."""
        self._api.super_squash_history(self.repo, repo_type="dataset", commit_message=message)

    def _info(self, *, make_it: bool = False) -> DatasetInfo:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._api.dataset_info(self.repo)
        except RepositoryNotFoundError:
            if not make_it:
                raise
            self._api.create_repo(
                self.repo, repo_type="dataset", private=self._private or None, exist_ok=True
            )
            info = self._api.dataset_info(self.repo)
        if self._private and info.private is not True:
            raise StorageError(
                f"Everybody can read the data set {self.repo}, so no vote is kept there: make it "
                "private, or name another one."
            )
        return info

    def _snapshot(self, info: DatasetInfo, folder: Path) -> Snapshot:
        names = [file.rfilename for file in info.siblings or ()]
        return Snapshot(self._api, self.repo, info.sha or "", names, folder)

    def _commit(self, message: str, there: Snapshot, texts: Mapping[str, str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        changed = {name: text for name, text in texts.items() if text != there.text(name)}
        if not changed:
            return
        self._api.create_commit(
            self.repo,
            [
                CommitOperationAdd(name, text.encode("utf8", "surrogateescape"))
                if text
                else CommitOperationDelete(name)
                for name, text in changed.items()
            ],
            commit_message=message,
            repo_type="dataset",
            parent_commit=there.head or None,
        )


def plain(act: Callable[[], Result], trouble: str) -> Result:
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


log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
RETRY_SECONDS = 60.0


def repeat(
    name: str, act: Callable[[], None], every: float, urgent: Callable[[], bool]
) -> threading.Thread:
    """Start a daemon thread that calls `act` now and every `every` seconds.

    It calls `act` within ten seconds once `urgent()` holds. An `act` that failed is repeated after
    a minute; no error ends the thread.
    """

    def run() -> None:
        pause = threading.Event()
        while True:
            wait = every if _done(name, act) else RETRY_SECONDS
            until = time.monotonic() + wait
            while time.monotonic() < until:
                pause.wait(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
                if wait == every and _holds(urgent):
                    break

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _done(name: str, act: Callable[[], None]) -> bool:
    """Whether `act` came to its end."""
    try:
        act()
    except StorageError as error:
        log.warning("%s", error)
    except Exception:
        log.exception("The %s failed; they are tried again in a minute", name)
    else:
        return True
    return False


def _holds(urgent: Callable[[], bool]) -> bool:
    """Whether it is urgent; while the database is away, it is not known and counts as no."""
    try:
        return urgent()
    except StorageError:
        return False


FOLDER = "data"
TOMBSTONES = "tombstones.jsonl"
CARD = "README.md"
MAX_FILE = 2_500_000
"""Characters of a file, so at most 10 MB. The Hub keeps a larger file as an object of its own, and
such objects outlive the squashing of the history."""
_ID = re.compile(r"[0-9a-f]{32}")
_DAY = re.compile(rf"{FOLDER}/votes-(\d{{4}}-\d\d-\d\d)(?:-\d+)?\.jsonl")


def published(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is published: the voter is a hash of a hash; there is no owner."""
    voter = published_voter(record["round"]["voter"])
    return with_id(record, voter=voter)


def with_id(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A record as a row, with its round's id at its beginning and without what changes later."""
    nothing = dict.fromkeys(("owner", "lease_until", "handed_over_until", "pushed_at"))
    record["round"] |= nothing | changes
    return {"round_id": record["round"]["id"], **record}


def add(
    there: Snapshot, rows: Iterable[dict[str, Any]], *, replace: bool = False
) -> dict[str, str]:
    """Put each row into its file once. A row that is there already stays, or is replaced there."""
    lines, days = {}, {}
    for row in rows:
        lines[row["round_id"]] = json.dumps(row, ensure_ascii=False)
        days[row["round_id"]] = row["vote"]["created_at"][:10]
    left, changed = dict(lines), {}
    for name in files(there):
        day = _DAY.fullmatch(name)
        if day is None or day[1] in days.values():
            changed[name] = _found(there.text(name), lines, left, replace)
    for day in sorted({days[round_id] for round_id in left}):
        _append(there, changed, day, [left[name] for name in left if days[name] == day])
    return changed


def card(there: Snapshot, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The data set's card, which names the models of `rows` beside the earlier ones."""
    return {CARD: data_card.updated(there.text(CARD), Contents.of_records(rows))}


def cut(there: Snapshot, withdrawn: Container[str], tombstones: Iterable[str]) -> dict[str, str]:
    """Take the rows of withdrawn rounds out of all files, and name `tombstones` as withdrawn."""
    buried = set(tombstones) | set(tombstones_of(there))
    said = "".join(f"{json.dumps({'round_id': name})}\n" for name in sorted(buried))
    changed = {name: _without(there.text(name), withdrawn) for name in files(there)}
    return {**changed, TOMBSTONES: said}


def files(there: Snapshot) -> list[str]:
    """The names of the files with votes, in order."""
    return sorted(
        name for name in there.names if name.startswith(f"{FOLDER}/") and name.endswith(".jsonl")
    )


def tombstones_of(there: Snapshot) -> Iterator[str]:
    """The ids of the rounds that the data set names as withdrawn."""
    ids = (_id_of(value) for _, value in _values(there.text(TOMBSTONES)))
    yield from (name for name in ids if name is not None)


def rows_of(there: Snapshot) -> dict[str, tuple[str, Any]]:
    """All rows as (place, value), by round; a bad line by its place. Of several the last counts."""
    rows: dict[str, tuple[str, Any]] = {}
    for name in files(there):
        for number, value in _values(there.text(name)):
            place = f"{name}, line {number}"
            rows[_id_of(value) or place] = (place, value)
    return rows


def _found(text: str, lines: Mapping[str, str], left: dict[str, str], replace: bool) -> str:
    """`text` with each row of `lines` at most once; the rows that it has leave `left`."""
    rows = []
    for line in filter(None, text.split("\n")):
        round_id = _round_id(line)
        if round_id not in lines:
            rows.append(line)
        elif round_id in left:
            new = left.pop(round_id)
            rows.append(new if replace else line)
    return "".join(f"{line}\n" for line in rows)


def _append(there: Snapshot, changed: dict[str, str], day: str, lines: list[str]) -> None:
    """Append lines to the files of a day, and begin a new file when one is full."""
    number = 0
    while lines:
        number += 1
        name = f"{FOLDER}/votes-{day}{f'-{number}' if number > 1 else ''}.jsonl"
        text = changed[name] if name in changed else there.text(name)
        taken, size = 0, len(text)
        while taken < len(lines) and (size == 0 or size + len(lines[taken]) < MAX_FILE):
            size += len(lines[taken]) + 1
            taken += 1
        changed[name] = text + "".join(f"{line}\n" for line in lines[:taken])
        lines = lines[taken:]


def _without(lines: str, withdrawn: Container[str]) -> str:
    """The lines of a file without those of withdrawn rounds. Unknown lines stay."""
    return "".join(
        f"{line}\n" for line in lines.split("\n") if line and _round_id(line) not in withdrawn
    )


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Each line that is not empty as (number, value). A bad line is a `ValueError`, whatever the
    other lines are: anyone with access to the data set may have put it there."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                yield number, error


def _round_id(line: str) -> str | None:
    try:
        return _id_of(parse_json(line))
    except ValueError:
        return None


def _id_of(row: Any) -> str | None:
    """The round of a row or a tombstone; None if it names none."""
    value = row.get("round_id") if isinstance(row, dict) else None
    return value if isinstance(value, str) and _ID.fullmatch(value) else None
