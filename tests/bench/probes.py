"""Measures a process: how often it waits for the device, its peak of memory, and its time."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_READS = (
    "tolist",
    "item",
    "cpu",
    "numpy",
    "nonzero",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
)


@contextmanager
def host_reads(*, cuda: bool) -> Iterator[list[str]]:
    """A list that gets an entry each time the host waits for the device.

    On CUDA torch itself tells. Elsewhere it is each call that brings values to Python.
    """
    import torch

    if cuda:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                yield _Synchronising(heard)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    found: list[str] = []

    def counted(name: str) -> Any:
        plain = getattr(torch.Tensor, name)

        def read(*words: Any, **options: Any) -> Any:
            found.append(name)
            return plain(*words, **options)

        return read

    kept = {name: getattr(torch.Tensor, name) for name in _READS}
    for name in _READS:
        setattr(torch.Tensor, name, counted(name))
    try:
        yield found
    finally:
        for name, plain in kept.items():
            setattr(torch.Tensor, name, plain)


class _Synchronising(list[str]):
    """torch's warnings of synchronising calls, among those in `heard`."""

    def __init__(self, heard: list[Any]) -> None:
        super().__init__()
        self._heard = heard

    def __len__(self) -> int:
        return sum("synchroniz" in str(one.message) for one in self._heard)


class Late(BaseException):
    """No time is left. No `except Exception` of what is measured may take it for an error."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `Late` inside after `seconds`; only where signals are to be had."""

    def late(*_: Any) -> None:
        raise Late

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def host_peak() -> float:
    """The most memory that this process has had, in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
