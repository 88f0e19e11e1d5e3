"""Runs `app.py` as on a ZeroGPU Space, with the real `spaces` package and no GPU.

Faked: the CUDA version of a CPU build of torch, and in the forked worker the two steps that touch
a card (`init`, `move`): the packed weights are read back from disk into the main memory. All else
is `spaces` itself: the emulated cuda device at start-up, the packing at launch, the lease over
HTTP, the fork, the queues. Prints the order in which spaces and torch were imported.
"""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import runpy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = 4096


class Watch:
    """Notes when spaces and torch are first looked for."""

    seen: list[str] = []  # noqa: RUF012

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name in ("spaces", "torch") and name not in self.seen:
            self.seen.append(name)
            print(f"importing {name}", flush=True)
        return None


def cuda_build() -> None:
    """Let a CPU build of torch say that it was built for CUDA."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    version = ModuleType("torch.version")
    exec((Path(torch.origin).parent / "version.py").read_text(), version.__dict__)
    if version.cuda is None:
        version.cuda = "12.8"  # type: ignore[attr-defined]
        sys.modules["torch.version"] = version
    # It would look for CUDA's libraries; unquantised models need none of it.
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]


def move(callback: Any = None) -> None:
    """What `spaces` does on a GPU, into main memory: the packed weights back into the models."""
    import torch
    from spaces.zero.torch import patching

    for pack in patching.tensor_packs:
        with Path(pack.path()).open("rb") as file:
            for tensor, size, aligned in itertools.chain(*pack.batches, pack.big_tensors):
                content = bytearray(file.read(aligned)[:size])
                real = torch.empty(0, dtype=tensor.dtype)
                storage = torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
                real.set_(storage, 0, tensor.shape, tensor.stride())
                for fake in pack.fakes[tensor]:
                    fake.data = real
    for fake, original in patching.cuda_aliases.items():
        if original is not None:
            fake.data = original


def without_card() -> None:
    """Replace the worker's two steps as soon as `spaces` is there."""
    plain = builtins.__import__

    def watched(*args: Any, **kwargs: Any) -> Any:
        module = plain(*args, **kwargs)
        built = getattr(sys.modules.get("torch"), "_C", None)
        if built is not None and not hasattr(built, "_cuda_init"):
            built._cuda_init = bool
        if "torch.cuda" in sys.modules:
            sys.modules["torch.cuda"]._is_in_bad_fork = bool  # type: ignore[attr-defined]
        zero = sys.modules.get("spaces.zero.torch")
        if zero is not None and getattr(zero, "move", move) is not move:
            zero.move, zero.init = move, bool  # type: ignore[attr-defined]
        return module

    builtins.__import__ = watched


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    cuda_build()
    sys.meta_path.insert(0, Watch())
    without_card()
    runpy.run_path("app.py", run_name="__main__")


if __name__ == "__main__":
    main()
