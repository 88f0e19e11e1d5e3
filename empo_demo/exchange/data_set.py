"""The data set of votes on the Hub: its rows, how withdrawn ones leave it, and how to import it.

Files under `data/` have one published record per line; of several lines with one `round_id` the
last one counts. `tombstones.jsonl` names the withdrawn rounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import update

from empo_demo.exchange.import_file import Imported, import_records
from empo_demo.files import json_lines, parse_json
from empo_demo.votes.keeping import published_voter
from empo_demo.votes.models import Tombstone
from empo_demo.votes.store import Store

WAIT = timedelta(hours=24)
FOLDER = "data"
TOMBSTONES = "tombstones.jsonl"
_ID = re.compile(r"[0-9a-f]{32}")


class Api(Protocol):
    """The part of `huggingface_hub.HfApi` that is used here."""

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> Iterable[str]: ...
    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str) -> str: ...
    def upload_file(
        self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str, repo_type: str
    ) -> Any: ...
    def super_squash_history(self, repo_id: str, *, repo_type: str) -> Any: ...


def take_out(store: Store, api: Api, repo: str) -> int:
    """Remove withdrawn rounds from the data set and squash its history; return their number."""
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
    """Import the rounds of the data set that are neither stored nor withdrawn.

    Its voters are hashes of the stored ones. `Keeping.adopt` gives a returning voter their rounds.
    Stored rounds are not changed, so a pull may be repeated.
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


def scrub(store: Store, folder: Path) -> None:
    """Remove withdrawn rounds from the local files, which would be uploaded again."""
    withdrawn = store.tombstones()
    for path in folder.glob("*.jsonl"):
        lines = _read(path)
        kept = _without(lines, withdrawn)
        if kept != lines:
            path.write_text(kept, encoding="utf8", errors="surrogateescape")


def published(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is published: the voter is a hash of a hash; there is no owner."""
    voter = published_voter(record["round"]["voter"])
    record["round"] |= {"voter": voter, "owner": None, "lease_until": None}
    return {"round_id": record["round"]["id"], **record}


def _restored(value: Any) -> Any:
    """A published row as a record to import, marked as pushed. A broken row stays as it is."""
    try:
        record = {key: one for key, one in value.items() if key != "round_id"}
        voted = datetime.fromisoformat(record["vote"]["created_at"])
        pushed = (voted + WAIT).isoformat()
        return {**record, "round": {**record["round"], "pushed_at": pushed}}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return value


def _without(lines: str, withdrawn: Container[str]) -> str:
    """The lines of a file without those of withdrawn rounds. Unknown lines stay."""
    return "".join(
        f"{line}\n" for line in lines.split("\n") if line and _round_id(line) not in withdrawn
    )


def _read(path: Path) -> str:
    """The text of a file. Bytes that are not UTF-8 are written back unchanged later."""
    return path.read_text(encoding="utf8", errors="surrogateescape")


def _round_id(line: str) -> str | None:
    try:
        return _id_of(parse_json(line))
    except ValueError:
        return None


def _id_of(row: Any) -> str | None:
    """The round of a published row or a tombstone; None if it names none."""
    found = row.get("round_id") if isinstance(row, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def _upload(api: Api, repo: str, name: str, text: str) -> None:
    raw = text.encode(errors="surrogateescape")
    api.upload_file(path_or_fileobj=raw, path_in_repo=name, repo_id=repo, repo_type="dataset")
