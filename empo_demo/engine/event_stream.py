"""Reads what a model server sends, strictly and in bounded memory: event streams and JSON bodies.

The lines of an event stream end with CR, LF or both, and with nothing else
(html.spec.whatwg.org/multipage/server-sent-events.html): U+2028 may stand inside a JSON text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from empo_demo.files import parse_json

if TYPE_CHECKING:
    import httpx

MOST_LINE = 2**20
"""The most bytes of a line. A chunk of a reply has a few hundred."""
_END = re.compile(rb"\r\n|\n|\r")


def event_stream(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the stream until `[DONE]`.

    Raises a `ValueError` with a plain reason if there are none, or if one is something else.
    """
    found = False
    for line in _lines(response):
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or not data:
            continue
        found = True
        if data == b"[DONE]":
            return
        chunk = parse_json(data)
        if not isinstance(chunk, dict):
            raise ValueError("an event holds something else than a JSON object")
        yield chunk
    if not found:
        raise ValueError("there is no event in it")


def json_body(response: httpx.Response, *, most: int, seconds: float) -> Any:
    """The JSON value of a response with at most `most` bytes, read within `seconds`.

    Raises a `ValueError` if it is no JSON or too long, and an `httpx.ReadTimeout`.
    """
    read = bytearray()
    until = time.monotonic() + seconds
    for part in response.iter_bytes():
        read += part
        if len(read) > most:
            raise ValueError(f"it is longer than {most:,} bytes")
        _check_time(response, until)
    return parse_json(bytes(read))


def first_bytes(response: httpx.Response, *, most: int = 10_000, seconds: float = 5.0) -> str:
    """The beginning of a response as text, to be logged; closes the response."""
    read = bytearray()
    until = time.monotonic() + seconds
    with closing(response):
        for part in response.iter_bytes():
            read += part
            if len(read) > most or time.monotonic() > until:
                break
    return bytes(read[:most]).decode("utf8", "replace")


def _lines(response: httpx.Response) -> Iterator[bytes]:
    line = bytearray()
    for part in response.iter_bytes():
        first, *others = _END.split(part)
        line += first
        for other in others:
            yield bytes(line)
            line = bytearray(other)
        if len(line) > MOST_LINE:
            raise ValueError(f"a line is longer than {MOST_LINE:,} bytes")
    yield bytes(line)


def _check_time(response: httpx.Response, until: float) -> None:
    import httpx

    if time.monotonic() > until:
        raise httpx.ReadTimeout("the body did not end in time", request=response.request)
