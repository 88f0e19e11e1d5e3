"""Puts this checkout on a Hugging Face Space, with the Hub's own client.

The plain `hf` commands that do the same by hand are in `docs/deploy.md`. What a Space holds beside
the app's files stays.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import SettingsError, StorageError
from empo_demo.settings import ROOT

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NEEDED = re.compile(
    r"(app\.py|README\.md|LICENSE|requirements\.txt|pyproject\.toml)$|empo_demo/|assets/"
)
"""The tracked files that the app reads, and its licence."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|(^|_)KEY$", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")
TOKEN = "SPACE_TOKEN"
"""The value of this variable becomes the Space's secret HF_TOKEN, with which it pushes."""
ZERO_GPU_TORCH = "2.11.0"
"""The newest torch that ZeroGPU offers."""
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse invalid names, and secrets that every visitor of the Space could read."""
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
            raise SettingsError(f"--set holds {name[:40]!r}, which is not a name of a variable.")
        if _SECRET.search(name) or (name == "EMPO_DATABASE" and _PASSWORD.search(value)):
            raise SettingsError(
                f"{name} is a secret, and everyone can read a Space's variables: set it as a "
                "secret in the Space's settings."
            )


def tracked(root: Path) -> list[str]:
    """The tracked files that the app needs, so that nothing else of a folder gets out."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    files: list[str] = []
    with suppress(OSError, subprocess.CalledProcessError):
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        files = names.split("\0")
    # An installed wheel may lie in a folder that some other repository holds.
    if "app.py" not in files:
        raise SettingsError(
            f"{root} is not a git checkout, so it is not known which files belong to the app; "
            "run this in a clone of the repository."
        )
    return [name for name in files if NEEDED.match(name) and (root / name).is_file()]


def requirements(text: str, hardware: str | None) -> str:
    """The requirements with a torch for the hardware: without CUDA if there is no GPU."""
    if hardware is not None and hardware.startswith("zero-"):
        return re.sub(r"(?m)^torch[<>=].*$", f"torch=={ZERO_GPU_TORCH}", text)
    cpu = hardware is not None and hardware.startswith("cpu-")
    return f"--extra-index-url {CPU_WHEELS}\n{text}" if cpu else text


def deploy(
    repo: str,
    *,
    hardware: str | None = None,
    dataset: str | None = None,
    backup: str | None = None,
    private: bool = False,
    variables: Mapping[str, str] | None = None,
    root: Path = ROOT,
    patience: float = 1800.0,
    poll: float = 5.0,
) -> str:
    """Make the Space `repo`, upload the app, wait until it runs, and return its address.

    `hardware` is None for what the Space has. Raises `SettingsError` on an invalid argument, and
    `StorageError` if the Hub refuses or the Space does not run after `patience` seconds.
    """
    from huggingface_hub import HfApi, SpaceHardware

    sets = {"EMPO_HUB_DATASET": dataset, "EMPO_HUB_BACKUP": backup}
    named = {**(variables or {}), **{name: value for name, value in sets.items() if value}}
    check_variables(named)
    if backup and backup == dataset:
        raise SettingsError(
            f"--backup holds {backup!r}, where the votes are published; it must be another data "
            "set, which stays private."
        )
    known = [flavor.value for flavor in SpaceHardware]
    if hardware is not None and hardware not in known:
        raise SettingsError(f"--hardware holds {hardware!r}; it may hold {', '.join(known)}.")
    files = tracked(root)
    api = HfApi()
    address = f"{api.endpoint}/spaces/{repo}"
    with _plain(repo):
        flavor = SpaceHardware(hardware) if hardware else None
        api.create_repo(
            repo,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=flavor,
            private=private or None,
            exist_ok=True,
        )
        if flavor:
            api.request_space_hardware(repo, flavor)
        for data_set in filter(None, sets.values()):
            api.create_repo(data_set, repo_type="dataset", private=True, exist_ok=True)
        for name, value in named.items():
            api.add_space_variable(repo, name, value)
        if token := os.environ.get(TOKEN):
            api.add_space_secret(repo, "HF_TOKEN", token)
        _upload(api, repo, root, files, hardware)
        api.restart_space(repo)
        try:
            stage: str = api.wait_for_space(repo, timeout=patience, poll_interval=poll).stage
        except TimeoutError:
            stage = f"not running after {patience / 60:.0f} minutes"
    if stage != "RUNNING":
        log = "build" if "BUILD" in stage else "container"
        raise StorageError(f"The Space is {stage}; see its log at {address}?logs={log}.")
    return address


def _upload(api: HfApi, repo: str, root: Path, files: list[str], hardware: str | None) -> None:
    """Upload the files, the requirements with the torch of the Space's hardware."""
    runtime = api.get_space_runtime(repo)
    own = hardware or runtime.requested_hardware or runtime.hardware
    wanted = requirements((root / "requirements.txt").read_text("utf8"), own).encode()
    others = [name for name in files if name != "requirements.txt"]
    into: dict[str, Any] = {"repo_id": repo, "repo_type": "space"}
    api.upload_folder(folder_path=root, allow_patterns=others, **into)
    api.upload_file(path_or_fileobj=wanted, path_in_repo="requirements.txt", **into)


@contextmanager
def _plain(repo: str) -> Iterator[None]:
    """An error of the Hub or the network as one `StorageError`."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError:
        raise SettingsError(f"{repo!r} is not a name of a repository; write owner/name.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = {
            401: "your token is not accepted: run `hf auth login`",
            402: "this hardware needs a paid plan: a free account may use --hardware zero-a10g",
            403: "your token may not write there: it needs write access to the owner's Spaces",
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
