"""The types of the fields of a stored record, with limits for what comes from outside.

They convert no value to another type, so that what was checked can be stored as it was written.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from empo_demo.errors import DataError

FIRST = datetime(2020, 1, 1, tzinfo=UTC)
"""The earliest time of a round: the arena is not older."""
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def _moment(value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is not a time (ISO 8601)") from None
    if moment.tzinfo is None:
        raise ValueError(f"the time {value!r} lacks its zone")
    if not FIRST <= moment <= datetime.now(UTC) + timedelta(days=1):
        raise ValueError(f"the time {str(value)[:40]} is before {FIRST.year} or in the future")
    return moment.astimezone(UTC)


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("it holds a character that cannot be stored (U+0000 or a surrogate)")
    return text


def _scalars(value: dict[str, Any]) -> dict[str, Any]:
    """Check stored settings: texts, numbers, booleans and lists of texts."""
    for key, scalar in value.items():
        many = scalar if isinstance(scalar, list) else [scalar]
        if not all(item is None or isinstance(item, str | int | float) for item in many):
            raise ValueError(f"{key[:40]!r} is neither a text, a number nor a list of texts")
        if any(isinstance(item, float) and abs(item) > 1e9 for item in many):
            raise ValueError(f"{key[:40]!r} is out of range")
        for text in (key, *(item for item in many if isinstance(item, str))):
            _storable(text)
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]
Text = Annotated[str, Strict(), StringConstraints(max_length=40_000), AfterValidator(_storable)]
Name = Annotated[
    str,
    Strict(),
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_storable),
]
RoundId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Place = Annotated[int, Strict(), Field(ge=0, le=40_000)]
Number = Annotated[float, Strict(), Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Signed = Annotated[float, Strict(), Field(ge=-1, le=1, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=-0.001, le=1.001, allow_inf_nan=False)]
"""A probability, with the tolerance that a SEM's own answer has."""
Settings = Annotated[dict[str, Any], Field(max_length=50), AfterValidator(_scalars)]
Slider = Annotated[int | float, Field(ge=0, le=100)]

Checked = TypeVar("Checked")


def checked(model: TypeAdapter[Checked], value: Any) -> Checked:
    """`value` as `model`. Raises a `DataError` that names the first fault and its place."""
    try:
        return model.validate_python(value)
    except ValidationError as error:
        raise DataError(first_fault(error)) from None


def first_fault(error: ValidationError, unknown: str = "is not a known key") -> str:
    """The first fault and its place, in plain words; `unknown` is said of a key too many."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    missing_or_unknown = {"missing": "is missing", "extra_forbidden": unknown}
    if fault["type"] in missing_or_unknown:
        return f"{place} {missing_or_unknown[fault['type']]}"
    said = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{place}: {said}" if place else said
