"""Engines on a leased GPU: on a ZeroGPU Space, each round leases a GPU for its own duration.

ZeroGPU has three conditions: `spaces` is imported before torch, a decorated function exists when
the page is launched, and the models are on "cuda" by then. The app's entry point imports this
module first, which fulfils the first two; the page loads the models before its launch. On other
machines this module changes nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from empo_demo.engine.lockstep.local import LocalEngine
    from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)
_START, _LOAD = 5.0, 2e9
"""Seconds that a new worker takes to start, and bytes of weights that it loads per second."""
_STEP, _MARGIN = 0.06, 1.5
"""Seconds per token before a round was measured, and the factor on what was measured."""
_SAID = {
    "No GPU was available": "All GPUs are in use at the moment; try again in a minute.",
    "GPU task aborted": "The GPU was taken away before the replies were complete; try again.",
    "maximum allowed": "The replies of this model take longer than ZeroGPU lends a GPU; the "
    "Space needs a GPU of its own, or a smaller max_new_tokens.",
    "quota": "Your free GPU time is used up. Log in to Hugging Face for more, or come back later.",
    "GPU limit": "The free GPU time is used up. Log in to Hugging Face, or come back later.",
    "runs limit": "Your free GPU time is used up; come back later.",
    "credits": "Too many of your rounds run at once; wait until one has ended.",
}
_leased: LocalEngine | None = None
"""The engine of this process. A lease forks, so the engine cannot be an argument of the call."""
_bytes = 0
_steps: deque[float] = deque(maxlen=16)

Streaming = Callable[[Sequence[Request]], Iterator[Event]]


def place(model: PreTrainedModel, device: str) -> None:
    """On ZeroGPU, move a model from main memory to `device`. Elsewhere it is there already.

    ZeroGPU emulates "cuda" only in the main thread, but transformers loads in other threads.
    """
    if on_zero_gpu():
        model.to(device)  # type: ignore[arg-type]


def seconds(requests: Sequence[Request]) -> int:
    """Seconds of lease to ask for. Both sides decode together, so the longer reply counts.

    Ask for as little as possible: a visitor with less quota than that gets no lease.
    """
    longest = max((request.decoding.max_new_tokens for request in requests), default=0)
    step = max(_steps, default=_STEP)
    return round(_START + _bytes / _LOAD + _MARGIN * step * longest)


def _gpu(function: Streaming) -> Streaming:
    """Decorate with `spaces.GPU` on a ZeroGPU Space; elsewhere return the function itself."""
    if not on_zero_gpu():
        return function
    import spaces

    decorated: Streaming = spaces.GPU(duration=seconds)(function)
    return decorated


@_gpu
def _on_lease(requests: Sequence[Request]) -> Iterator[Event]:
    """Run in the forked worker. There, torch hangs if it uses the parent's pool of threads."""
    import torch

    torch.set_num_threads(1)
    if _leased is not None:
        yield from _leased.stream(requests)


class LeasedEngine:
    """A `LocalEngine` whose rounds run on a lease. Both sides of a round share one lease."""

    def __init__(self, engine: LocalEngine, copies: Sequence[Weights]) -> None:
        global _leased, _bytes
        self._engine = _leased = engine
        weights = (weight for copy in copies for weight in copy.model.parameters())
        _bytes = sum(weight.numel() * weight.element_size() for weight in weights)

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self._engine.check(requests)
        return self._stream(list(requests))

    def _stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """The worker's events; a `Failed` per open side if the lease fails or ends early."""
        missing = {request.side for request in requests}
        try:
            with closing(_on_lease(requests)) as events:  # type: ignore[type-var]
                for event in events:
                    if not isinstance(event, Delta):
                        missing.discard(event.side)
                    if isinstance(event, Finished) and event.tokens:
                        _steps.append(event.milliseconds / 1000 / event.tokens)
                    yield event
        except Exception as error:
            log.warning("The lease failed: %s", error)
            for side in sorted(missing):
                yield Failed(side, _sentence(error))

    def describe(self) -> dict[str, str]:
        return {**self._engine.describe(), "lease": "ZeroGPU"}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _sentence(error: Exception) -> str:
    """The sentence that a visitor reads. Errors of `spaces` have their text in `message`."""
    said = str(getattr(error, "message", error))
    known = (words for part, words in _SAID.items() if part in said)
    return next(known, "The GPU could not be borrowed; try again in a minute.")
