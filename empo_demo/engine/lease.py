"""Engines on a leased GPU: on a ZeroGPU Space each round borrows the device for its own length.

The Space finds `_on_lease` by its decorator when the app starts, so the app's entry point imports
this module before it launches. Anywhere else the decorator changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from empo_demo.engine.protocol import Event, Request

if TYPE_CHECKING:
    from empo_demo.engine.local import LocalEngine

_BASE_SECONDS, _SECONDS_PER_TOKEN = 15, 0.12
_leased: LocalEngine | None = None
"""The engine of this process. A lease forks, so the engine cannot be an argument of the call."""

Streaming = Callable[[Sequence[Request]], Iterator[Event]]


def on_zero_gpu() -> bool:
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def seconds(requests: Sequence[Request]) -> int:
    """How long a lease the round needs: both sides are written together, so the longer counts."""
    longest = max((request.decoding.max_new_tokens for request in requests), default=0)
    return int(_BASE_SECONDS + _SECONDS_PER_TOKEN * longest)


def _gpu(function: Streaming) -> Streaming:
    """`spaces.GPU` on a ZeroGPU Space, else the function itself."""
    if not on_zero_gpu():
        return function
    import spaces

    decorated: Streaming = spaces.GPU(duration=seconds)(function)
    return decorated


@_gpu
def _on_lease(requests: Sequence[Request]) -> Iterator[Event]:
    if _leased is not None:
        yield from _leased.stream(requests)


class LeasedEngine:
    """A `LocalEngine` whose rounds run on a lease: one for both sides of a round."""

    def __init__(self, engine: LocalEngine) -> None:
        global _leased
        self._engine = _leased = engine

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self._engine.check(requests)
        return _on_lease(list(requests))

    def describe(self) -> dict[str, str]:
        return {**self._engine.describe(), "lease": "ZeroGPU"}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
