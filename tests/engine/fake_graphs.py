"""CUDA graphs acted out on a CPU: what is recorded reads and writes the same memory at each replay.

As on a card, a replay runs no Python: operations run again on the very storages of the recording.
Memory from before the recording is not kept alive by it; where it was given back meanwhile, a
card would read whatever is there now, and here `Stale` is raised. Reading a value on the host, and
bringing host data in, end a recording with an error, as they do on a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_HOST = ("_local_scalar_dense", "lift_fresh", "nonzero", "is_nonzero")


class Stale(RuntimeError):
    """A replay reads memory that was given back since it was recorded."""


class _Borrowed:
    """A tensor from before the recording, known by where it lies."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.shape = (tensor.storage_offset(), tensor.shape, tensor.stride())
        self.dtype = tensor.dtype

    def now(self) -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            raise Stale("a recorded step reads memory that was given back")
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.shape)


class Graph(TorchDispatchMode):
    """What `torch.cuda.CUDAGraph` and `torch.cuda.graph` do."""

    replays = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in _HOST):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        given = tree_map(self._kept, (args, kwargs or {}))
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.untyped_storage()._cdata not in known:
                self.made[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        self.calls.append((func, *given, out))
        return out

    def _kept(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        own = value.untyped_storage()._cdata in self.made
        return value if own else _Borrowed(value)

    def replay(self) -> None:
        Graph.replays += 1
        for func, args, kwargs, out in self.calls:
            args, kwargs = tree_map(_now, (args, kwargs))
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                if old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                    old.copy_(new)


def _now(value: Any) -> Any:
    return value.now() if isinstance(value, _Borrowed) else value


def _tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map(lambda one: found.append(one) if isinstance(one, torch.Tensor) else None, value)
    return found


class Stream:
    """A stream; all work is done in order here. `current` is the one that work goes to."""

    current: Stream

    def wait_stream(self, _other: Any) -> None: ...


class _Pool:
    """The memory of several graphs. As torch's allocator, it takes no graph after the last went."""

    def __init__(self) -> None:
        self.graphs: WeakSet[Graph] = WeakSet()
        self.used = False


@contextmanager
def _recording(graph: Graph, *, pool: _Pool, **_options: Any) -> Iterator[None]:
    """`torch.cuda.graph`: if the recording fails, the end of it does, and its stream stays."""
    if pool.used and not pool.graphs:
        raise RuntimeError("INTERNAL ASSERT FAILED: it->second->use_count > 0")
    before, Stream.current = Stream.current, Stream()
    pool.used = True
    pool.graphs.add(graph)
    with graph:
        yield
    Stream.current = before


@contextmanager
def _on(stream: Stream) -> Iterator[None]:
    before, Stream.current = Stream.current, stream
    try:
        yield
    finally:
        Stream.current = before


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """Puts this in the place of torch's CUDA graphs; `replays` counts."""
    monkeypatch.setattr(Stream, "current", Stream(), raising=False)
    acted = {
        "Stream": Stream,
        "current_stream": lambda *_: Stream.current,
        "stream": _on,
        "set_stream": lambda stream: setattr(Stream, "current", stream),
        "device": nullcontext,
        "synchronize": lambda *_: None,
        "CUDAGraph": Graph,
        "graph": _recording,
        "graph_pool_handle": _Pool,
    }
    for name, value in acted.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(Graph, "replays", 0)
    return Graph
