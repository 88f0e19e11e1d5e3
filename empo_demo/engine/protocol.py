"""What an engine is: requests in, events out.

An engine answers a few requests *together* (the sides of one round) as one plain, synchronous
generator of events. Closing the generator stops the work within one token. If one side
fails, it gets a `Failed` event, and the other side goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from empo_demo.dialogue import Message
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    from empo_demo.settings import Quantization

Pair = Literal["tiny", "smollm2", "own"]
"""The pairs of this repository, and models of one's own."""
FinishReason = Literal["eos", "stop", "length", "stopped"]
"""Why a side ended: end-of-sequence token, stop string, token limit, or stopped by a person."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn. `temperature` 0 is greedy; `top_p` in (0, 1]; penalty 1 means none."""

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    max_new_tokens: int = 60
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """The job of one side. `contender` is an id of the roster that the engine loaded.

    `adapter_scale` is the alignment dial: 0 is the base, 1 the adapter as trained. Requests of one
    `stream` call with the same `round` answer the same dialogue. If it is too long for one of
    them, all of them leave out the same old exchanges.
    """

    side: str
    contender: str
    messages: tuple[Message, ...]
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    adapter_scale: float = 1.0
    round: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one side. It never ends inside a character.

    `dropped` is the number of oldest exchanges that the prompt left out, as the dialogue is too
    long. It is the same for all sides of a round.
    """

    side: str
    text: str
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """One side is complete. `text` is the whole reply, equal to the joined deltas."""

    side: str
    reason: FinishReason
    text: str
    tokens: int
    milliseconds: float
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """One side cannot continue. `error` is one plain sentence, never a traceback."""

    side: str
    error: str


Event = Delta | Finished | Failed


class Source(Protocol):
    """What an engine must know of a contender: its id, and what generates its replies.

    `base` is a folder or a Hub id ("" if there are only recorded replies). `adapter` is the PEFT
    adapter on it. `predictions` is a file of recorded replies, used instead of the weights. An
    `optional` one is left out where its model does not fit, or no server has it.
    """

    @property
    def id(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def adapter(self) -> str | None: ...
    @property
    def predictions(self) -> str | None: ...
    @property
    def optional(self) -> bool: ...


class Lineup(Protocol):
    """All sources that one engine serves, with quantisation and decoding of the local ones.

    `tiny` models fit every machine. `system_prompt` is "" if dialogues begin with the user.
    """

    @property
    def contenders(self) -> Sequence[Source]: ...
    @property
    def quantization(self) -> Quantization: ...
    @property
    def decoding(self) -> Decoding: ...
    @property
    def tiny(self) -> bool: ...
    @property
    def system_prompt(self) -> str: ...


@runtime_checkable
class Engine(Protocol):
    """Anything that answers: a local model, a server, a file of recorded replies."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Yield events until every side has a `Finished` or a `Failed`; close to cancel."""
        ...

    def describe(self) -> dict[str, str]:
        """What is served and how (device, quantisation, plan), for the page and the log."""
        ...


class Interruptible(Iterator[Event]):
    """The events of a stream that another thread may end while its reader waits for the next one.

    A generator cannot be closed while it runs, and a silent server may let it run for a minute.
    """

    def __init__(self, events: Iterator[Event], cut: Callable[[], None]) -> None:
        self._events = events
        self.cut = cut
        """End the stream at once, from any thread: its reader gets no more events."""

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        self.cut()
        with suppress(ValueError):  # another thread is reading, and ends now
            self._events.close()  # type: ignore[attr-defined]


def not_loaded(contender: str, known: Iterable[str]) -> EngineError:
    """The refusal of a request for a contender that an engine does not serve."""
    return EngineError(
        "The contender {name} is not loaded; there are: {known}.",
        name=repr(contender),
        known=", ".join(known),
    )
