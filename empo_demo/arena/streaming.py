"""Streams the replies of one round from the engine to the page and stores them.

Both sides always end with an outcome, also after an error, a stop or a closed page. The outcome is
stored before the last event goes out. The first words of both sides come together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from empo_demo.arena.jobs import Job
from empo_demo.arena.live import Live, Outcome
from empo_demo.engine.protocol import Delta, Engine, Event, Failed, Finished, Request
from empo_demo.votes.models import SIDES, Side
from empo_demo.votes.store import now

log = logging.getLogger(__name__)
WITHHELD = "This reply was withheld, because it could encourage harm."


class RoundStream:
    """Runs the jobs of one round on an engine. Calls `save` once, with complete outcomes."""

    def __init__(
        self,
        engine: Engine,
        jobs: Mapping[Side, Job],
        live: Live,
        *,
        save: Callable[[Live], None],
        screen: Callable[[str], str | None],
    ) -> None:
        self.engine, self.jobs, self.live = engine, jobs, live
        self._save, self._screen = save, screen
        self._saved = False
        self._started = time.perf_counter()

    def events(self) -> Iterator[Event]:
        """Yield the events of the round, once. Closing stops the engine and stores the outcome."""
        stream = _together(self._answers())
        try:
            for event in stream:
                if isinstance(event, Delta) and self.live.first_words_at is None:
                    self.live.first_words_at = now()
                if all(outcome.done for outcome in self.live.outcomes.values()):
                    self._finish()
                yield event
        finally:
            _close(stream)
            for outcome in self.live.outcomes.values():
                if not outcome.done:
                    self._stopped(outcome)
            self._finish()

    def _finish(self) -> None:
        if not self._saved:
            self._saved = True
            self._save(self.live)

    def _answers(self) -> Iterator[Event]:
        """Yield all events and record them in the outcomes. At the end every side is done."""
        stream: Iterator[Event] = iter(())
        try:
            requests = [self._ready(job) for job in self.jobs.values() if job.request is not None]
            said = self._paced(self._stream([r for r in requests if r is not None]))
            stream = withholding(said, self._screen)
            if not self.live.stop.is_set():
                for event in stream:
                    if self.live.stop.is_set():
                        break  # what a stream says once it was cut is no reply
                    yield from self._record(event)
                    if self.live.stop.is_set() or self._withheld():
                        break
        except Exception:
            log.exception("The engine broke off round %s", self.live.round_id)
            yield from self._end_all("The model broke off with an error.")
        finally:
            _close(stream)
        if not self.live.stop.is_set() and not self._withheld():
            yield from self._end_all("The model ended without an answer.")
        yield from self._end_all(None)

    def _stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        stream = self.engine.stream(requests)
        self.live.cut = getattr(stream, "cut", None)
        if self.live.stop.is_set() and self.live.cut is not None:
            self.live.cut()  # it was stopped before there was something to cut
        return stream

    def _withheld(self) -> bool:
        return any(outcome.error == WITHHELD for outcome in self.live.outcomes.values())

    def _end_all(self, error: str | None) -> Iterator[Event]:
        """End the open sides: as failed with `error`, or as stopped."""
        for side, outcome in self.live.outcomes.items():
            if outcome.done:
                continue
            if error is not None:
                outcome.error = error
                yield Failed(side, error)
            else:
                self._stopped(outcome)
                yield Finished(
                    side, "stopped", outcome.text, outcome.tokens, outcome.milliseconds,
                    outcome.dropped,
                )  # fmt: skip

    def _stopped(self, outcome: Outcome) -> None:
        outcome.reason = "stopped"
        outcome.milliseconds = (time.perf_counter() - self._started) * 1000

    def _record(self, event: Event) -> Iterator[Event]:
        outcome = self.live.outcomes[event.side]  # type: ignore[index]
        if outcome.done:
            return
        if not isinstance(event, Failed):
            outcome.dropped = event.dropped
        if isinstance(event, Delta):
            outcome.text += event.text
            outcome.tokens += 1
        elif isinstance(event, Finished):
            outcome.text = event.text
            outcome.tokens, outcome.milliseconds = event.tokens, event.milliseconds
            outcome.reason = event.reason
        else:
            outcome.error = event.error
            if event.error == WITHHELD:
                # Also what came before the harmful word is shown to nobody and stored nowhere.
                outcome.text = ""
        yield event

    def _ready(self, job: Job) -> Request | None:
        """The final request of a job. A two-step contender thinks first; that text is not shown."""
        outcome, request = self.live.outcomes[job.side], job.request
        prepared = job.prepared
        if request is None or prepared is None:
            return request
        if prepared.think is not None and job.after_thinking is not None:
            thought = self._think(request, prepared.think)
            outcome.thought = thought or None
            prepared = job.after_thinking(thought)
        outcome.guidance = prepared.guidance
        return Request(
            request.side, request.contender, tuple(prepared.messages), request.decoding,
            request.seed, request.adapter_scale,
        )  # fmt: skip

    def _think(self, request: Request, messages: tuple[dict[str, str], ...]) -> str:
        """The thought of a contender before it answers; "" if it failed or was stopped."""
        from empo_demo.contenders.strategies import THINKING

        think = Request(
            request.side, request.contender, tuple(messages), THINKING, request.seed,
            request.adapter_scale,
        )  # fmt: skip
        stream = self._stream([think])
        try:
            for event in stream:
                if self.live.stop.is_set():
                    return ""
                if isinstance(event, Finished):
                    return event.text.strip()
        finally:
            _close(stream)
        return ""

    def _paced(self, events: Iterator[Event]) -> Iterator[Event]:
        """Yield `events`, and the words of a known bad side at the pace of the other side."""
        bad = next((job for job in self.jobs.values() if job.known_bad is not None), None)
        if bad is None or bad.known_bad is None:
            yield from events
            return
        words = bad.known_bad.split(" ")
        said = 0
        for event in events:
            yield event
            if isinstance(event, Delta) and said < len(words):
                yield Delta(bad.side, words[said] if said == 0 else f" {words[said]}")
                said += 1
        if said < len(words) and not self.live.stop.is_set():
            rest = " ".join(words[said:])
            yield Delta(bad.side, rest if said == 0 else f" {rest}")
        elapsed = (time.perf_counter() - self._started) * 1000
        yield Finished(bad.side, "eos", bad.known_bad, len(words), elapsed)


def withholding(events: Iterator[Event], screen: Callable[[str], str | None]) -> Iterator[Event]:
    """Yield `events`. A side fails with `WITHHELD` at the word with which it becomes harmful.

    `screen` says of a text so far why it must not be shown, or None. Of a side that was withheld
    nothing more comes; once all sides are, `events` are closed, which stops the models.
    """
    texts: dict[str, str] = {}
    withheld: set[str] = set()
    try:
        for event in events:
            if event.side in withheld:
                continue
            if not isinstance(event, Failed):
                before = texts.get(event.side, "") if isinstance(event, Delta) else ""
                texts[event.side] = before + event.text
                if screen(texts[event.side]) is not None:
                    withheld.add(event.side)
                    event = Failed(event.side, WITHHELD)
            yield event
            if withheld >= set(SIDES):
                return
    finally:
        _close(events)


def _together(events: Iterator[Event]) -> Iterator[Event]:
    """Hold events until each side has one, so that no side's first words come earlier."""
    held: list[Event] = []
    waiting = set(SIDES)
    try:
        for event in events:
            if not waiting:
                yield event
                continue
            held.append(event)
            waiting.discard(event.side)
            if not waiting:
                yield from held
        if waiting:
            yield from held
    finally:
        _close(events)


def _close(stream: Iterator[Event]) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()
