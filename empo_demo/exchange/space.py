"""Makes a Hugging Face Space from this checkout: creates it, sets it up, uploads, starts it.

The Hub's own upload needs no Git LFS on this machine. Other files on the Space (votes, its own
files) stay. A broken upload continues where it stopped: the Hub keeps what has arrived, and
unchanged files are not sent again.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.errors import SettingsError, StorageError
from empo_demo.progress import progress
from empo_demo.settings import ROOT

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

NEEDED = ("app.py", "README.md", "LICENSE", "requirements.txt", "pyproject.toml")
FOLDERS = ("empo_demo/", "assets/")
"""The files that the app reads, and its licence. Tests and CI files are not uploaded."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(^|_)KEY$", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")
TOKEN = "SPACE_TOKEN"
"""The value of this variable becomes the Space's secret HF_TOKEN, with which it pushes."""
ZERO_GPU_TORCH = "2.11.0"
"""The newest torch that ZeroGPU offers."""
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PATIENCE = 30 * 60.0
_LARGE = 1_000_000
"""Files of at least this many bytes are sent one by one, so a broken upload keeps them."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The wanted state of the Space `repo`. `files` are paths relative to `root`."""

    repo: str
    hardware: str | None = None
    dataset: str | None = None
    private: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT
    files: tuple[str, ...] = ()

    def content(self, path: str) -> bytes | Path:
        """The content to upload as `path`: the file, or requirements for the Space's hardware."""
        if path == "requirements.txt":
            return requirements((self.root / path).read_text("utf8"), self.hardware).encode()
        return self.root / path

    def bytes(self) -> int:
        return sum((self.root / path).stat().st_size for path in self.files)

    def lines(self) -> list[str]:
        """The planned steps, for a dry run."""
        settings = [f"  {name}={value}" for name, value in self.variables.items()]
        return [
            f"Space {self.repo} ({'private' if self.private else 'public'}), "
            f"hardware {self.hardware or 'as it is'}",
            f"{len(self.files)} files, {self.bytes() / 1e6:.0f} MB; nothing is deleted",
            *(["variables:", *settings] if settings else []),
            *([f"data set {self.dataset} for the votes"] if self.dataset else []),
        ]


def plan(
    repo: str,
    *,
    hardware: str | None = None,
    dataset: str | None = None,
    private: bool = False,
    variables: dict[str, str] | None = None,
    root: Path = ROOT,
) -> Deployment:
    """Check the arguments and list the files. Raises `SettingsError` on an invalid argument."""
    from huggingface_hub import SpaceHardware
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    for name in (repo, *([dataset] if dataset else [])):
        try:
            validate_repo_id(name)
            _owner, _ = name.split("/")
        except ValueError:
            raise SettingsError(f"{name!r} is no name of a repository; write owner/name.") from None
    known = [flavor.value for flavor in SpaceHardware]
    if hardware is not None and hardware not in known:
        raise SettingsError(f"--hardware holds {hardware!r}; it may hold {', '.join(known)}.")
    every = dict(variables or {})
    for name, value in every.items():
        _check_variable(name, value)
    if dataset:
        every["EMPO_HUB_DATASET"] = dataset
    return Deployment(repo, hardware, dataset, private, every, root, tracked(root))


def _check_variable(name: str, value: str) -> None:
    """Refuse invalid variables, and secrets that every visitor of the Space could read."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise SettingsError(f"--set holds {name[:40]!r}, which is no name of a variable.")
    if _SECRET.search(name) or (name == "EMPO_DATABASE" and _PASSWORD.search(value)):
        raise SettingsError(
            f"{name} is a secret, and everyone can read a Space's variables: set it as a secret in "
            "the Space's settings."
        )


def tracked(root: Path) -> tuple[str, ...]:
    """The tracked files that the app needs."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise SettingsError(
            f"{root} is no git checkout, so it is not known which files belong to the app; "
            "run this in a clone of the repository."
        ) from None
    names = sorted(
        name
        for name in found.split("\0")
        if (name in NEEDED or name.startswith(FOLDERS)) and (root / name).is_file()
    )
    missing = {"app.py", "README.md", "requirements.txt"} - set(names)
    if missing:
        raise SettingsError(f"{root} lacks {', '.join(sorted(missing))}; a Space needs them.")
    return tuple(names)


def requirements(text: str, hardware: str | None) -> str:
    """The requirements with a torch for the hardware: without CUDA if there is no GPU."""
    if hardware is None:
        return text
    if hardware.startswith("zero-"):
        return re.sub(r"(?m)^torch[<>=].*$", f"torch=={ZERO_GPU_TORCH}", text)
    return f"--extra-index-url {CPU_WHEELS}\n{text}" if hardware.startswith("cpu-") else text


def deploy(wanted: Deployment, *, patience: float = PATIENCE, poll: float = 5.0) -> str:
    """Make the Space and wait until it runs; return its address.

    Raises `SettingsError` without a login, `StorageError` if the Hub refuses or the Space fails.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if get_token() is None:
        raise SettingsError(
            "You are not logged in to the Hub. Run `hf auth login`, or set HF_TOKEN to a token "
            "that may write to your Spaces."
        )
    disable_progress_bars()
    api = HfApi()
    with _plain(wanted.repo):
        wanted = replace(wanted, hardware=_set_up(api, wanted))
        _upload(api, wanted)
        api.restart_space(wanted.repo)
        try:
            runtime = api.wait_for_space(wanted.repo, timeout=patience, poll_interval=poll)
        except TimeoutError:
            raise StorageError(
                f"The Space is not running after {patience / 60:.0f} minutes; see its log at "
                f"{_address(api, wanted.repo)}?logs=container."
            ) from None
    if runtime.stage != "RUNNING":
        log = "build" if "BUILD" in runtime.stage else "container"
        raise StorageError(
            f"The Space ended in the state {runtime.stage}; see "
            f"{_address(api, wanted.repo)}?logs={log}."
        )
    return _address(api, wanted.repo)


def _set_up(api: HfApi, wanted: Deployment) -> str | None:
    """Set up repositories, hardware, variables and secrets. What is right already stays.

    Returns the Space's hardware: what is wanted, or what it has.
    """
    from huggingface_hub import SpaceHardware

    hardware = SpaceHardware(wanted.hardware) if wanted.hardware else None
    api.create_repo(
        wanted.repo, repo_type="space", space_sdk="gradio", space_hardware=hardware,
        private=wanted.private or None, exist_ok=True,
    )  # fmt: skip
    runtime = api.get_space_runtime(wanted.repo)
    if hardware and runtime.requested_hardware != hardware.value:
        api.request_space_hardware(wanted.repo, hardware)
    there = api.get_space_variables(wanted.repo)
    for name, value in wanted.variables.items():
        if name not in there or there[name].value != value:
            api.add_space_variable(wanted.repo, name, value)
    if wanted.dataset:
        api.create_repo(wanted.dataset, repo_type="dataset", private=True, exist_ok=True)
    if token := os.environ.get(TOKEN):
        api.add_space_secret(wanted.repo, "HF_TOKEN", token)
    return wanted.hardware or runtime.requested_hardware or runtime.hardware


def lacks_token(wanted: Deployment) -> bool:
    """Whether the Space shall push votes but has no token for it."""
    from huggingface_hub import HfApi

    if not wanted.dataset:
        return False
    with _plain(wanted.repo):
        return "HF_TOKEN" not in HfApi().get_space_secrets(wanted.repo)


def _upload(api: HfApi, wanted: Deployment) -> None:
    """Upload all files in one commit. The large ones are sent before it, one by one."""
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path, wanted.content(path)) for path in wanted.files]
    large = [operation for operation in operations if _size(operation) >= _LARGE]
    for operation in progress(large, "Uploading"):
        api.preupload_lfs_files(wanted.repo, [operation], repo_type="space")
    api.create_commit(wanted.repo, operations, commit_message="Update the app", repo_type="space")


def _size(operation: CommitOperationAdd) -> int:
    return operation.upload_info.size


def _address(api: HfApi, repo: str) -> str:
    return f"{api.endpoint}/spaces/{repo}"


@contextmanager
def _plain(repo: str) -> Iterator[None]:
    """An error of the Hub or the network as one `StorageError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = {
            401: "your token is not accepted: run `hf auth login`",
            402: "this hardware needs a paid plan: a free account may use --hardware zero-a10g",
            403: "your token may not write there: it needs write access to the owner's Spaces",
            404: "there is no such repository, or your token may not see it",
        }.get(status, str(error.server_message or error).strip().splitlines()[0])
        raise StorageError(
            f"The Hub refused {repo} ({status}): {reason}. Run the command again afterwards; what "
            "has arrived is kept."
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise StorageError(
            f"The Hub cannot be reached ({str(error).splitlines()[0]}). Run the command again; "
            "what has arrived is kept."
        ) from error
