"""A data set on the Hub: its files are read at one commit, and changed from that commit only.

Whoever changes it builds the change from what they read. If another commit came between, the Hub
refuses the change, and it is built anew from the newest commit. So of two processes that change it
at once, one sees what the other did. Nothing that is read stays on the disk.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from empo_demo.errors import StorageError

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
