"""The streams of rounds: what a round's two jobs say on an engine, until each side has ended.

Both sides always end with an outcome, also after an error, a stop or a closed page.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from empo_demo.arena import guards, opening
from empo_demo.arena.frames import Frame, Replies, close, frames
from empo_demo.arena.jobs import Job, as_read, jobs_of
from empo_demo.arena.live import Live, LiveRounds, owner
from empo_demo.arena.loaded_models import Models
from empo_demo.contenders.strategies import THINKING
from empo_demo.engine.protocol import Delta, Engine, Event, Failed, Finished, Request
from empo_demo.errors import NotAllowed
from empo_demo.votes.models import Round, Side
from empo_demo.votes.store import Store, voter_id

log = logging.getLogger(__name__)


class RoundStream(Iterator[Event]):
    """Runs the jobs of one round on an engine; `frames` reads it and keeps `live.replies`.

    The engine is asked at the first event. Between two events it is looked whether somebody has
    stopped the round, and whether a reply was withheld, which ends the other one too.
    """

    def __init__(self, engine: Engine, jobs: Mapping[Side, Job], live: Live) -> None:
        self.engine, self.jobs, self.live = engine, jobs, live
        self._started = time.perf_counter()
        self._stream: Iterator[Event] | None = None
        self._waiting: deque[Event] = deque()
        self._ended = False
        bad = next((job for job in jobs.values() if job.known_bad is not None), None)
        self._bad_side = bad.side if bad else None
        self._bad_words = deque((bad.known_bad or "").split(" ") if bad else ())

    def __next__(self) -> Event:
        while not self._waiting:
            if self._ended:
                raise StopIteration
            self._waiting.extend(self._more())
        return self._waiting.popleft()

    def close(self) -> None:
        """Stop the engine; sides that have not ended count as stopped."""
        self._release()
        for outcome in self.live.replies.outcomes.values():
            if not outcome.done:
                outcome.reason, outcome.milliseconds = "stopped", self._milliseconds()

    def _release(self) -> None:
        if self._stream is not None:
            close(self._stream)

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._started) * 1000

    def _more(self) -> list[Event]:
        """Return the engine's next event and what comes with it, or the ends of the round."""
        if self.live.stop.is_set() or self.live.replies.withheld:
            return self._end(None)
        try:
            if self._stream is None:
                requests = [self._ready(job) for job in self.jobs.values()]
                if self.live.stop.is_set():
                    return self._end(None)
                self._stream = self._ask([request for request in requests if request is not None])
            event = next(self._stream, None)
        except Exception:
            log.exception("The engine broke off round %s", self.live.round_id)
            return self._end("The model broke off with an error.")
        if self.live.stop.is_set():
            return self._end(None)  # what a stream says once it was cut is not a reply
        if event is None:
            return self._rest_of_bad() or self._end("The model ended without an answer.")
        return [event, *self._word_of_bad()] if isinstance(event, Delta) else [event]

    def _ask(self, requests: Sequence[Request]) -> Iterator[Event]:
        stream = self.engine.stream(requests)
        self.live.cut = getattr(stream, "cut", None)
        if self.live.stop.is_set() and self.live.cut is not None:
            self.live.cut()  # it was stopped before there was something to cut
        return stream

    def _end(self, error: str | None) -> list[Event]:
        """Return the ends of the open sides: failed with `error`, or stopped."""
        self._ended = True
        self._release()
        ends: list[Event] = []
        for side, outcome in self.live.replies.outcomes.items():
            if outcome.done:
                continue
            if error is not None:
                ends.append(Failed(side, error))
            else:
                ends.append(
                    Finished(
                        side,
                        "stopped",
                        outcome.text,
                        outcome.tokens,
                        self._milliseconds(),
                        outcome.dropped,
                    )
                )
        return ends

    # A side with a known bad reply -------------------------------------------------------------

    def _word_of_bad(self) -> list[Event]:
        """Return the next word of a known bad side: it is said at the pace of the other side."""
        if self._bad_side is None or not self._bad_words:
            return []
        word = self._bad_words.popleft()
        begun = self.live.replies.outcomes[self._bad_side].text
        return [Delta(self._bad_side, f" {word}" if begun else word)]

    def _rest_of_bad(self) -> list[Event]:
        """Return the end of a known bad side, with the words that the other side left no time
        for."""
        side = self._bad_side
        if side is None or self.live.replies.outcomes[side].done:
            return []
        text = self.jobs[side].known_bad or ""
        return [Finished(side, "eos", text, len(text.split(" ")), self._milliseconds())]

    # A contender that thinks first ---------------------------------------------------------------

    def _ready(self, job: Job) -> Request | None:
        """The final request of a job. A two-step contender thinks first; that text is not shown."""
        outcome, request = self.live.replies.outcomes[job.side], job.request
        prepared = job.prepared
        if request is None or prepared is None:
            return request
        if prepared.think is not None and job.after_thinking is not None:
            think = replace(request, messages=tuple(prepared.think), decoding=THINKING)
            thought = self._think(think)
            outcome.thought = thought or None
            prepared = job.after_thinking(thought)
        outcome.guidance = prepared.guidance
        return replace(request, messages=tuple(prepared.messages))

    def _think(self, request: Request) -> str:
        """The thought of a contender before it answers; "" if it failed or was stopped."""
        stream = self._ask([request])
        try:
            for event in stream:
                if self.live.stop.is_set():
                    return ""
                if isinstance(event, Finished):
                    return event.text.strip()
        finally:
            close(stream)
        return ""


class Streams:
    """Plays the stored rounds of one arena on its models."""

    def __init__(self, store: Store, models: Models, rounds: LiveRounds) -> None:
        self._store, self._models, self._rounds = store, models, rounds

    def perform(self, token: str, round_: Round, every: float) -> Generator[Frame, None, None]:
        """Yield the frames of a pending round of the voter `token`, at most each `every` seconds.

        It waits for the models, claims the round, and stores what came of it. Raises `NotAllowed`
        if the round is being answered already.
        """
        live = Live(round_.id, voter_id(token), replies=Replies(guards.screen))
        if not self._rounds.add(live):
            raise NotAllowed("This round is being answered already. Wait for it, or press Stop.")
        try:
            engine = self._models.engine(given_up=live.stop.is_set)
            if engine is None:
                self._store.void(token, round_.id, "It was stopped before the models had loaded.")
                yield live.replies.frame()
                return
            roster = self._models.roster
            redrawn = None if opening.is_drawn_from(round_, roster) else self._redrawn(round_)
            jobs = jobs_of(round_, roster)
            stream, read = RoundStream(engine, jobs, live), as_read(engine, jobs, round_)
            # Claimed last: a round that is claimed and not streamed would be nobody's for minutes.
            claimed = self._store.claim(
                token, round_.id, owner(), engine.describe(), read, redrawn=redrawn
            )
            if not claimed:
                raise NotAllowed("This round was answered or stopped in the meantime. Reload it.")
            save = self._rounds.save
            try:
                yield from frames(stream, live.replies, watch=lambda: live.watch(save), every=every)
            finally:
                live.finish(save)
        finally:
            self._rounds.remove(live)

    def _redrawn(self, round_: Round) -> Round:
        """The round with contenders of those that are here by now, before its first word."""
        log.info("Round %s: its contenders are not here; others are drawn", round_.id)
        roster = self._models.roster
        opening.draw_again(round_, roster, self._store.contender_counts(roster.revisions))
        return round_
