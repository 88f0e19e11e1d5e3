"""The model of a stored round, which checks every round that comes from outside.

`votes import`, `votes restore` and the merge of a data set check each round here before it is
stored. The rules are those for a visitor's round, so that no imported round can break an export,
the Board or the page. A record is `{"round": {…}, "replies": [{…}, {…}], "vote": {…} | null}`, in a
backup with `"voter": {…}`. Times are ISO 8601.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlalchemy import inspect

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.reading import checked_json
from empo_demo.errors import DataError, InvalidInput
from empo_demo.fields import (
    Digest,
    Moment,
    Name,
    Number,
    RoundId,
    Seed,
    Settings,
    Slider,
    Text,
    first_fault,
)
from empo_demo.votes.models import (
    RATINGS,
    SIDES,
    VERDICTS,
    Base,
    Reply,
    Round,
    Side,
    State,
    Vote,
    Voter,
    now,
)


class _Strict(BaseModel):
    """Converts no value to another type, and allows no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _reading(value: Any) -> dict[str, Any] | None:
    try:
        return None if value is None else checked_json(value)
    except DataError as error:
        raise ValueError(str(error)) from None


class TurnRecord(_Strict):
    """`read` is the text as the models read it, where control tokens in it were broken."""

    role: Literal["user", "assistant"]
    content: Text
    read: Text = ""


class RoundRecord(_Strict):
    """The columns of `rounds`."""

    id: RoundId
    voter: Digest
    state: State
    created_at: Moment
    first_words_at: Moment | None = None
    ready_at: Moment | None = None
    ephemeral: bool
    consent: Digest | None = None
    dialogue: list[TurnRecord]
    origin: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,16}$")]
    example: Name | None = None
    parent: RoundId | None = None
    retry_of: RoundId | None = None
    seed: Seed
    decoding: Settings
    system_prompt: Text
    roster: Name
    engine: Settings | None = None
    app_version: Annotated[str, StringConstraints(pattern=r"^[\w.+-]{1,32}$")]
    reading: Annotated[dict[str, Any] | None, BeforeValidator(_reading)] = None
    sem_error: Text | None = None
    exposure: Literal["all", "after-vote", "randomised"]
    show_chips: bool
    show_plots: bool
    crisis: bool
    personal: bool
    identity: bool
    english: bool
    check_side: Side | None = None
    void_reason: Text | None = None
    dropped_exchanges: Annotated[int, Field(ge=0, le=10_000)] | None = None
    notices: list[Literal["email", "link", "phone", "handle", "address", "english"]] | None = None
    hidden_reason: Text | None = None
    owner: Name | None = None
    lease_until: Moment | None = None
    handed_over_until: Moment | None = None
    pushed_at: Moment | None = None

    @model_validator(mode="after")
    def _dialogue_keeps_its_rules(self) -> Self:
        try:
            dialogue = Dialogue.from_messages([turn.model_dump() for turn in self.dialogue])
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        if not dialogue.turns or dialogue.turns[-1].role != "user":
            raise ValueError("the dialogue must end with a turn of the user")
        return self


class ReplyRecord(_Strict):
    """The columns of `replies`; `round_id` may be left out."""

    round_id: RoundId | None = None
    side: Side
    contender: Name
    revision: Text
    strategy: Annotated[str, StringConstraints(pattern=r"^[\w.+-]{1,32}$")]
    seed: Seed
    guidance: Text | None = None
    thought: Text | None = None
    text: Text | None = None
    tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    milliseconds: Number | None = None
    reason: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,16}$")] | None = None
    error: Text | None = None


class VoteRecord(_Strict):
    """The columns of `votes`. `id` gives the order of votes and may be left out."""

    id: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    round_id: RoundId | None = None
    receipt: Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{5}-[0-9A-Z]{5}$")]
    verdict: str
    chosen: Side
    created_at: Moment
    seconds: Number
    seconds_shown: Number
    fast: bool
    ratings: dict[str, Slider] | None = None
    comment: Text = ""
    comment_at: Moment | None = None
    continued: Digest

    @model_validator(mode="after")
    def _verdict_and_sliders_exist(self) -> Self:
        if self.verdict not in VERDICTS:
            raise ValueError(f"the verdict must be one of {', '.join(VERDICTS)}")
        for key in self.ratings or {}:
            side, _, dimension = key.partition("_")
            if side not in SIDES or dimension not in RATINGS:
                raise ValueError(f"there is no slider {key[:40]!r}")
        return self


class VoterRecord(_Strict):
    """The columns of `voters`."""

    id: Digest
    created_at: Moment
    user: Name | None = None


class TombstoneRecord(_Strict):
    """The columns of `tombstones`."""

    round_id: RoundId
    at: Moment
    published: bool


class Record(BaseModel):
    """One round with its two replies and, if there are any, its vote and its voter.

    Other keys are ignored.
    """

    model_config = ConfigDict(strict=True)

    round: RoundRecord
    replies: list[ReplyRecord]
    vote: VoteRecord | None = None
    voter: VoterRecord | None = None

    @classmethod
    def check(cls, value: Any) -> Self:
        """The record in a parsed JSON value. Raises a `DataError` that names the first fault."""
        return check(cls, value)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if sorted(reply.side for reply in self.replies) != list(SIDES):
            raise ValueError("a round must have the replies of the sides a and b")
        vote = self.vote
        ids = {reply.round_id for reply in self.replies} | {vote.round_id if vote else None}
        if ids - {None, self.round.id}:
            raise ValueError("its replies or its vote are another round's")
        if self.voter is not None and self.voter.id != self.round.voter:
            raise ValueError("its voter is another round's")
        if (self.round.state == "voted") != (vote is not None):
            raise ValueError("its state and its vote do not fit")
        if vote is not None:
            if any(not (reply.text or "").strip() for reply in self.replies):
                raise ValueError("a round with a vote must have both replies' texts")
            preferred = VERDICTS[vote.verdict].preferred or vote.chosen
            if preferred != vote.chosen and not self.round.check_side:
                raise ValueError("its verdict and the side chosen do not fit")
        return self

    def as_voter(self) -> Voter:
        """The row of its voter; of one that is not told, only the id is known."""
        if self.voter is not None:
            return Voter(**self.voter.model_dump())
        return Voter(id=self.round.voter, created_at=self.round.created_at)

    def as_round(self) -> Round:
        """The rows to store. The order of votes is that in which they are stored."""
        made = Round(**self.round.model_dump(exclude_unset=True))
        made.replies = [Reply(**reply.model_dump(exclude={"round_id"})) for reply in self.replies]
        if self.vote is not None:
            made.vote = Vote(**self.vote.model_dump(exclude={"round_id", "id"}))
            if made.pushed_at is None and made.handed_over_until is None:
                made.handed_over_until = now()  # it may have been pushed since it was written
        return made


Part = TypeVar("Part", bound=BaseModel)


def check(model: type[Part], value: Any) -> Part:
    """`value` as `model`. Raises a `DataError` that names the first fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DataError(_first(error)) from None


def record_of(round_: Round) -> dict[str, Any]:
    """Everything stored of a round, as a JSON value that `Record.check` accepts."""
    return {
        "round": columns_of(round_),
        "replies": [columns_of(reply) for reply in round_.replies],
        "vote": columns_of(round_.vote) if round_.vote is not None else None,
    }


def columns_of(row: Base) -> dict[str, Any]:
    """The columns of a row as JSON values."""
    values = {column.key: getattr(row, column.key) for column in inspect(type(row)).columns}
    return {
        key: value.isoformat() if isinstance(value, datetime) else value
        for key, value in values.items()
    }


def _first(error: ValidationError) -> str:
    """The first fault and its place, in plain words."""
    fault = error.errors(include_url=False, include_context=False)[0]
    if fault["type"] == "model_type" and len(fault["loc"]) < 2:
        return "a record must be an object with the keys round, replies and vote"
    return first_fault(error, unknown="is not a column of a stored round")
