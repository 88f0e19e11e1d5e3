"""The use case: open a round, stream it, take the vote, reveal, go on.

It imports neither gradio nor torch. The page holds only a round id and the voter's token. Every
method is reachable from outside and checks its arguments as if a stranger had called it.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from empo_demo.arena import guards, opening
from empo_demo.arena.comparison import Comparison, Shown, explore, shown
from empo_demo.arena.frames import SECONDS, Frame
from empo_demo.arena.jobs import replay
from empo_demo.arena.live import LiveRounds
from empo_demo.arena.loaded_models import Models
from empo_demo.arena.rounds import (
    ConsentText,
    OpenedRound,
    Receipt,
    RoundView,
    blind_record,
    dialogue_of,
    goes_on_with,
    may_help,
    own_vote,
    receipt_of,
    view_of,
    with_advice,
)
from empo_demo.arena.streaming import Streams
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Engine
from empo_demo.errors import NotAllowed, Sentence, StorageError
from empo_demo.votes import consent as consents
from empo_demo.votes.janitor import Janitor
from empo_demo.votes.models import Round
from empo_demo.votes.record import record_of
from empo_demo.votes.stats import Stats, count
from empo_demo.votes.store import NOT_VOTABLE, CastVote, Store, voter_id

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster
    from empo_demo.empathy.reading import Reading
    from empo_demo.empathy.sem import SEM
    from empo_demo.settings import Settings

log = logging.getLogger(__name__)
UNANSWERABLE = "This round cannot be answered: {reason}"


class Arena:
    """One arena over one store. It is safe for threads. Replicas share the store, not the arena.

    `models` are the engine and the SEM, which may be attached after the start.
    """

    def __init__(
        self,
        settings: Settings,
        roster: Roster,
        store: Store,
        *,
        engine: Engine | None = None,
        sem: SEM | None = None,
    ) -> None:
        self.settings, self.store = settings, store
        self.models = Models(roster, engine, sem)
        self._rounds = LiveRounds(store)
        self._streams = Streams(store, self.models, self._rounds)
        self._seeds = random.Random(settings.seed) if settings.seed is not None else None
        Janitor(store).start()
        abandoned, erased = self._rounds.sweep(), store.erasure.purge()
        if abandoned or erased:
            log.info("Abandoned rounds made void: %d; erased: %d", abandoned, erased)

    @property
    def roster(self) -> Roster:
        """Who takes part, by the models that are loaded or meant."""
        return self.models.roster

    def change_pair(self, roster: Roster, reason: Sentence) -> None:
        """Serve `roster` instead of the one that was meant; only before an engine is attached.

        A round that was opened for the other pair moves to this one before its first word.
        """
        self.models.replace(roster, reason)

    # The voter ------------------------------------------------------------------------------

    def new_voter(self) -> str:
        """A random token of 43 URL-safe characters. Nothing is stored before the first round."""
        return secrets.token_urlsafe(32)

    def consent_text(self, language: str = "en") -> ConsentText:
        """The text that a visitor may agree to. Pass its version as `consent`.

        It is English if there is none in `language`.
        """
        text = consents.TEXTS.get(language, consents.TEXT)
        return ConsentText(consents.version_of(text), text)

    def my_votes(self, voter: str) -> list[dict[str, Any]]:
        """The contents of the voter's votes, oldest first."""
        rounds = self.store.rounds_of(guards.check_token(voter))
        return [own_vote(round_, self._labels()) for round_ in rounds if round_.vote]

    def my_data(self, voter: str) -> list[dict[str, Any]]:
        """Every stored round of the voter, as it is stored, oldest first.

        A round without a vote is still blind, so it comes without the names of the contenders.
        """
        rounds = self.store.rounds_of(guards.check_token(voter))
        return [record_of(round_) if round_.vote else blind_record(round_) for round_ in rounds]

    def withdraw(self, voter: str, round_id: str) -> None:
        """Erase one round of the voter with its vote; `NotFound` if the round is not theirs."""
        round_ = self._own(guards.check_token(voter), round_id)
        self._rounds.forget({round_.id})
        self.store.erasure.erase_round(voter, round_.id)

    def delete_my_data(self, voter: str, *, address: str | None = None) -> int:
        """Erase all rounds and votes of the voter, and the hashes of the address they come from;
        return the number of rounds."""
        token = guards.check_token(voter)
        self._rounds.forget({round_.id for round_ in self.store.rounds_of(token)})
        return self.store.erase_voter(token, address)

    def end_visit(self, voter: str) -> int:
        """Erase the rounds of a visitor who gave no consent; return their number."""
        return self.store.erasure.purge(token=guards.check_token(voter))

    # The life of a round --------------------------------------------------------------------

    def open_round(
        self,
        voter: str,
        dialogue: Dialogue,
        text: str | guards.Judged,
        *,
        consent: str | None = None,
        address: str | None = None,
        user: str | None = None,
        example: str | None = None,
        check: opening.Check | None = None,
    ) -> OpenedRound:
        """Check the text, read it, draw the contenders and store the round. Nothing is generated.

        `check` is only for texts of our own, whose emotion is known.

        `consent` is the version of the current text. Without it the round is erased after the
        visit. Raises `InvalidInput` for the text or dialogue, `NotAllowed` for the rate limits and
        for a consent in the middle of a dialogue, and before all of these `HelpFirst` if the
        dialogue says that someone is in crisis.
        """
        before = guards.said_by_user(dialogue)
        if isinstance(text, guards.Judged):
            judged, text = [*self._judge(*before), text], text.text
        else:
            judged = self._judge(*before, text)
        token = guards.check_token(voter)
        full = guards.check_dialogue(dialogue, text)
        agreed = guards.check_consent(consent)
        parent = self.store.parent_of(token, dialogue.digest) if dialogue.turns else None
        guards.check_earlier_turns(parent, agreed)
        self.store.limits.admit(token, address, user if agreed else None)
        origin = "continued" if parent else "example" if example else "new"
        if dialogue.turns and origin == "new":
            origin = "given"
        return self._open(
            token,
            full,
            guards.Flags.of(judged),
            consent=agreed,
            origin=origin,
            example=(example or "")[:200] or None,
            parent=parent.id if parent else None,
            check=check,
        )

    def retry(self, voter: str, round_id: str, *, address: str | None = None) -> OpenedRound:
        """Open the same dialogue again with new seeds and sides. The old round becomes void.

        Raises `NotAllowed` where trying again cannot help.
        """
        token = guards.check_token(voter)
        old = self._answerable(token, round_id)
        judged = self._judge(*guards.said_by_user(dialogue_of(old)))
        if not may_help(old):
            raise NotAllowed(
                "It was tried twice, and the model only thought. Start a new dialogue."
            )
        self._rounds.stop(old.id)
        self.store.limits.admit(token, address)
        self.store.void(token, old.id, "It was tried again.")
        return self._open(
            token,
            dialogue_of(old),
            guards.Flags.of(judged),
            consent=old.consent,
            origin=old.origin,
            example=old.example,
            parent=old.parent,
            retry_of=old.id,
        )

    def stream(
        self, voter: str, round_id: str, *, every: float = SECONDS
    ) -> Generator[Frame, None, None]:
        """Yield what both sides have said so far, at most each `every` seconds.

        It waits while the models load. Closing the iterator stops the models and keeps the text so
        far. A round that was answered before yields its stored replies. Raises `NotAllowed` for a
        void or running round.
        """
        round_ = self._answerable(guards.check_token(voter), round_id)
        if round_.state == "streaming" and self._rounds.get(round_.id) is None:
            self._rounds.sweep()
            round_ = self._own(voter, round_id)
        if round_.state == "void":
            raise NotAllowed(with_advice(UNANSWERABLE, round_))
        if round_.state == "streaming":
            raise NotAllowed("This round is being answered already. Wait for it, or press Stop.")
        if round_.state in ("votable", "voted"):
            return replay(round_)
        return self._streams.perform(voter, round_, every)

    def stop(self, voter: str, round_id: str) -> None:
        """Stop a round that streams in this process. Its replies so far are kept.

        It is stopped also while the database is out of reach.
        """
        token, wanted = guards.check_token(voter), guards.check_round_id(round_id)
        live = self._rounds.get(wanted)
        if live is None or live.voter != voter_id(token):
            wanted = self._own(token, round_id).id
        self._rounds.stop(wanted)

    def vote(
        self,
        voter: str,
        round_id: str,
        verdict: str,
        *,
        ratings: Mapping[str, int] | None = None,
        comment: str = "",
    ) -> Receipt:
        """Store the vote and say who was who. A second call returns the first receipt."""
        token = guards.check_token(voter)
        verdict, comment = guards.check_verdict(verdict), guards.check_comment(comment)
        guards.check_ratings(ratings, "a")
        wanted = guards.check_round_id(round_id)
        noticed = guards.noticed_in(comment, self.settings.country)

        def fill(round_: Round) -> CastVote:
            self._refuse_flagged(round_)
            chosen = goes_on_with(round_, verdict)
            goes_on = dialogue_of(round_).plus("assistant", round_.reply(chosen).text or "…")
            sliders = guards.check_ratings(ratings, chosen)
            return CastVote(verdict, chosen, goes_on.digest, dict(sliders), comment, **noticed)

        try:
            self._rounds.flush(wanted)
            voted, created = self.store.cast(token, wanted, fill)
        except NotAllowed:
            round_ = self._own(token, wanted)
            if round_.state == "void":
                raise NotAllowed(with_advice(NOT_VOTABLE, round_)) from None
            raise
        except StorageError as error:
            uncounted = "{error} The vote was not counted; nothing is lost, try again."
            raise StorageError(
                Sentence(uncounted, error=error.sentence), Sentence(uncounted, error=error.public)
            ) from error
        return receipt_of(voted, self._labels(), created=created)

    def set_ratings(
        self, voter: str, round_id: str, ratings: Mapping[str, int], comment: str = ""
    ) -> None:
        """Add ratings (0–100) and a comment after the vote."""
        token, comment = guards.check_token(voter), guards.check_comment(comment)
        round_ = self._own(token, round_id)
        chosen = round_.vote.chosen if round_.vote else "a"
        sliders = dict(guards.check_ratings(ratings, chosen))
        self.store.set_ratings(
            token, round_.id, sliders, comment, **guards.noticed_in(comment, self.settings.country)
        )

    def go_on(self, voter: str, round_id: str) -> Dialogue:
        """The dialogue with the chosen reply, after the vote. It is the same at every call."""
        round_ = self._own(guards.check_token(voter), round_id)
        if round_.vote is None:
            raise NotAllowed("Vote first: the dialogue goes on with the reply that you choose.")
        text = round_.reply(round_.vote.chosen).text or ""
        return dialogue_of(round_).plus("assistant", text)

    def find(self, voter: str, round_id: str) -> RoundView:
        """The round, in any state, for a page that was reloaded."""
        round_ = self._answerable(guards.check_token(voter), round_id)
        live = self._rounds.get(round_.id)
        return view_of(round_, self._labels(), live.replies.frame().texts if live else None)

    def latest(self, voter: str) -> RoundView | None:
        """The newest round of the voter; None if there is none."""
        round_ = self.store.latest_of(guards.check_token(voter))
        return self.find(voter, round_.id) if round_ is not None else None

    def stats(self) -> Stats:
        """Counts of rounds and votes, and of the votes that exports leave out, by reason."""
        return count(self.store)

    def judge(self, text: str) -> guards.Judged:
        """Look at a text before it is sent; `open_round` takes what this returns for the text.

        Raises `HelpFirst` for signs of a crisis, and then `InvalidInput` for what cannot be sent.
        """
        (judged,) = self._judge(text)
        clean_text(text, limit=MAX_TEXT)
        return judged

    # Outside a round: nothing here is blind, stored or a vote -----------------------------------

    def heed(self, texts: Sequence[object]) -> None:
        """Raise `HelpFirst` if one of a user's `texts` says that someone is in crisis.

        It comes before every other check, limit and question, and stores nothing.
        """
        guards.check_crisis(texts, self.settings.country, self.models.sem(patience=0.0))

    def analyze(self, dialogue: Dialogue | str) -> Reading:
        """The SEM's reading of the last user turn (or of a bare text). Nothing is stored.

        Raises `HelpFirst` if the dialogue says that someone is in crisis.
        """
        if isinstance(dialogue, str):
            dialogue = guards.check_dialogue(Dialogue(), dialogue)
        self.heed(guards.said_by_user(dialogue))
        sem = self.models.sem()
        if sem is None:
            raise NotAllowed("The emotion model is not available; the arena works without it.")
        return sem.read(dialogue.turns)

    def explore(
        self, comparison: Comparison, *, address: str | None = None, every: float = SECONDS
    ) -> tuple[dict[str, Shown], Generator[Frame, None, None]]:
        """Stream a comparison, which is neither blind nor stored; return who is on which side.

        It counts against the limits of the address. Without the SEM, `Shown` says that a guided
        side has no guidance. Raises `HelpFirst` if the dialogue says that someone is in crisis.
        """
        self.heed(guards.said_by_user(comparison.dialogue))
        comparison.checked(self.roster)
        engine, sem = self.models.engine_now(), self.models.sem()
        self.store.limits.admit_explore(address)
        reading, _ = opening.read(sem, comparison.dialogue)
        stream = explore(
            engine,
            self.roster,
            comparison,
            reading,
            screen=guards.screen,
            watch=self._give_way,
            every=every,
        )
        return shown(self.roster, comparison, reading), stream

    def _give_way(self) -> None:
        """End a comparison that uses the engine's only place when a round waits for it."""
        if self.settings.max_concurrent_rounds == 1 and self.models.ahead():
            raise NotAllowed("A visitor's round comes first; compare again in a moment.")

    # Inside ---------------------------------------------------------------------------------

    def _judge(self, *texts: object) -> list[guards.Judged]:
        return guards.judge(texts, self.settings.country, self.models.sem(patience=0.0))

    def _own(self, token: str, round_id: str) -> Round:
        round_id = guards.check_round_id(round_id)
        self._rounds.flush(round_id)
        return self.store.round_of(token, round_id)

    def _answerable(self, token: str, round_id: str) -> Round:
        round_ = self._own(token, round_id)
        self._refuse_flagged(round_)
        return round_

    def _refuse_flagged(self, round_: Round) -> None:
        """Earlier versions opened rounds on crisis language; these are neither shown nor played."""
        if round_.crisis:
            raise guards.help_first(self.settings.country)

    def _labels(self) -> dict[str, str]:
        return {contender.id: contender.label for contender in self.roster.contenders}

    def _open(
        self,
        token: str,
        dialogue: Dialogue,
        flags: guards.Flags,
        *,
        consent: str | None,
        origin: str,
        example: str | None,
        parent: str | None,
        retry_of: str | None = None,
        check: opening.Check | None = None,
    ) -> OpenedRound:
        seed = self._seeds.getrandbits(62) if self._seeds else secrets.randbits(62)
        stored, opened = opening.compose(
            dialogue,
            flags,
            self.settings,
            self.roster,
            self.models.sem(),
            self.store.contender_counts(self.roster.revisions),
            seed,
            check,
        )
        stored.voter, stored.consent, stored.ephemeral = voter_id(token), consent, consent is None
        stored.origin, stored.example = origin, example
        stored.parent, stored.retry_of = parent, retry_of
        self.store.add_round(stored)
        log.info("Round %s: seed %d, roster %s", stored.id, seed, self.roster.name)
        return opened
