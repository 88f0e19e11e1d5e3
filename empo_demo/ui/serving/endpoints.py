"""What the server offers beside the page: a whole round by API, and the downloads of exports.

Each endpoint takes the voter's token and the round's id explicitly, so that any replica can serve
any step, except `stop`: only the replica that streams a round can stop it. Nothing that they answer
before the vote names a contender. The downloads are made anew for each request, and no file is
left.

A download is a file of votes with its card, packed together, so that neither goes without the
other. A file that the page had prepared would outlive "Delete my data"; here nothing does. A vote
is in no download before it may be published.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import gradio as gr
from gradio_client.utils import python_type_to_json_schema
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import MAX_TEXT, Dialogue
from empo_demo.engine.protocol import Failed, Finished
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.ui.drawing.highlights import GENERAL
from empo_demo.ui.serving.gradio_patches import Api
from empo_demo.ui.serving.lanes import CALLS, READING, ROUNDS, VOTES
from empo_demo.ui.visitors import address_of
from empo_demo.votes.models import MAX_COMMENT, RATINGS, VERDICTS

if TYPE_CHECKING:
    from empo_demo.votes.store import Store

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


def plainly(call: Callable[P, R]) -> Callable[P, R]:
    """Refusals in plain words; for anything else one general sentence and a log entry."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except ArenaError as error:
            raise gr.Error(error.public, print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("An endpoint failed")
            raise gr.Error(GENERAL, print_exception=False) from None

    return wrapped


def build(arena: Arena) -> None:
    """Register every endpoint on the current page."""
    _round_endpoints(arena)
    _own_endpoints(arena)


def _round_endpoints(arena: Arena) -> None:
    @plainly
    def open_round(
        voter: str, dialogue: list, text: str, consent: str = "", request: gr.Request | None = None
    ) -> dict:
        """Open a round: dialogue is [{role, content}] so far (may be empty), text the new turn."""
        opened = arena.open_round(
            voter, _dialogue(dialogue), text, consent=consent or None, address=address_of(request)
        )
        return opened.as_json()

    def stream(voter: str, round_id: str) -> Iterator[dict]:
        """Both replies as they grow: {"a": text, "b": text, "finished": {side: reason}}.

        "dropped_exchanges" is how many of the first exchanges were too long for the models.
        """
        try:
            with closing(arena.stream(voter, round_id)) as stream:
                for frame in stream:
                    ends = {side: _end(end) for side, end in frame.ends.items()}
                    yield {
                        **frame.texts,
                        "finished": ends,
                        "dropped_exchanges": frame.dropped,
                    }
        except ArenaError as error:
            raise gr.Error(error.public, print_exception=False) from None
        except Exception:
            log.exception("The stream of a round failed")
            raise gr.Error(GENERAL, print_exception=False) from None

    @plainly
    def vote(
        voter: str, round_id: str, verdict: str, ratings: dict | None = None, comment: str = ""
    ) -> dict:
        """Vote (a, tie, both_bad or b) once; the answer says who was who."""
        return arena.vote(voter, round_id, verdict, ratings=ratings, comment=comment).as_json()

    @plainly
    def go_on(voter: str, round_id: str) -> list:
        """After the vote, the shared dialogue with the chosen reply, for the next round."""
        return arena.go_on(voter, round_id).messages()

    @plainly
    def analyze(text: str, dialogue: list | None = None) -> dict:
        """Emotions, certainty, cause words and valence of a text, in a dialogue. Stores nothing."""
        before = _dialogue(dialogue or [])
        return arena.analyze(before.plus("user", text)).as_json()

    @plainly
    def retry(voter: str, round_id: str, request: gr.Request | None = None) -> dict:
        """The same dialogue again as a new round."""
        return arena.retry(voter, round_id, address=address_of(request)).as_json()

    @plainly
    def stop(voter: str, round_id: str) -> str:
        """Stop a round that this server streams; what was said is kept."""
        arena.stop(voter, round_id)
        return "stopping"

    @plainly
    def find_round(voter: str, round_id: str) -> dict:
        """A round as it stands, for a page that was reloaded."""
        return arena.find(voter, round_id).as_json()

    _register(CALLS, open_round, retry)
    _register(READING, analyze)
    _register(VOTES, vote, stop, go_on, find_round)
    _register(ROUNDS, stream)


def _own_endpoints(arena: Arena) -> None:
    @plainly
    def new_voter() -> str:
        """A random voter's token. Keep it: it is all that ties your votes together."""
        return arena.new_voter()

    @plainly
    def consent() -> dict:
        """The text to agree to, and its version: pass that to open_round if you do."""
        text = arena.consent_text()
        return {"version": text.version, "text": text.text}

    @plainly
    def my_votes(voter: str) -> list:
        """All votes of the token, oldest first."""
        return arena.my_votes(voter)

    @plainly
    def my_data(voter: str) -> list:
        """Everything that is stored of the token, as it is stored, oldest first."""
        return arena.my_data(voter)

    @plainly
    def withdraw_vote(voter: str, round_id: str) -> str:
        """Erase one round of the token with its vote."""
        arena.withdraw(voter, round_id)
        return "withdrawn"

    @plainly
    def delete_my_data(voter: str, request: gr.Request | None = None) -> int:
        """Erase all rounds and votes of the token; answers how many rounds."""
        return arena.delete_my_data(voter, address=address_of(request))

    @plainly
    def end_visit(voter: str) -> int:
        """Erase at once what was written without consent; else it is erased within the hour."""
        return arena.end_visit(voter)

    _register(
        VOTES, new_voter, consent, my_votes, my_data, withdraw_vote, delete_my_data, end_visit
    )


PARAMETERS = {
    "voter": "The voter's token, from new_voter.",
    "round_id": "The round_id that open_round answered.",
    "dialogue": "The turns so far, as go_on answers them; none, or the last is the assistant's.",
    "text": f"What the user says now, at most {MAX_TEXT} characters.",
    "consent": "The version that consent answered, so that the round may be kept and published; "
    "without it the round is erased within the hour.",
    "verdict": "Which reply is better.",
    "ratings": "Sliders from 0 to 100 by side and name, as a_natural. The names are "
    f"{', '.join(RATINGS)}.",
    "comment": f"A remark, at most {MAX_COMMENT} characters.",
}
"""What `?view=api` and `view_api()` say of each parameter, beside its type."""
_TURN = {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}}
_KINDS: dict[str, dict[str, Any]] = {
    "dialogue": {"type": "array", "items": {"type": "object", "properties": _TURN}},
    "verdict": {"enum": list(VERDICTS)},
    "ratings": {"type": "object", "additionalProperties": {"type": "integer"}},
}
"""The JSON schemas of parameters that their Python type does not tell."""


def _register(lane: str, *calls: Callable[..., Any]) -> None:
    for call in calls:
        gr.api(call, api_name=call.__name__, concurrency_id=lane)
        _describe(call)


def _describe(call: Callable[..., Any]) -> None:
    """Say of the endpoint that was registered last what it takes and what it answers."""
    page = gr.context.Context.root_block
    assert page is not None, "an endpoint is registered on a page"
    made = page.fns[max(page.fns)]
    hints = get_type_hints(call)
    named = [name for name in inspect.signature(call).parameters if name != "request"]
    for name, taken in zip(named, made.inputs, strict=True):
        assert isinstance(taken, Api), "gr.api makes these"
        kind = _KINDS.get(name, dict(taken._api_info))
        taken.label = name
        taken._api_info = {**kind, "additional_description": PARAMETERS[name]}
    (answered,) = made.outputs
    assert isinstance(answered, Api)
    kind = hints["return"]
    kind = get_args(kind)[0] if get_origin(kind) is Iterator else kind
    schema = python_type_to_json_schema(kind)
    words = " ".join((call.__doc__ or "").split())
    answered.label, answered._api_info = "answer", {**schema, "description": words}


def _end(end: Finished | Failed) -> str:
    return end.reason if isinstance(end, Finished) else f"failed: {end.error}"


def _dialogue(messages: object) -> Dialogue:
    if not isinstance(messages, list):
        raise InvalidInput("The dialogue must be a list of objects with 'role' and 'content'.")
    return Dialogue.from_messages(messages)


ENDINGS = {"trl": "jsonl", "kto": "jsonl", "csv": "csv"}
PER_ADDRESS = 2
"""How many exports of one address may wait. Only one is made at a time: it reads every vote."""


def address_of_export(form: str) -> str:
    return f"export/{form}"


def route(arena: Arena) -> Route:
    """Return the route `/export/{form}` for the votes of `arena`."""
    turn = asyncio.Lock()
    asked: Counter[str | None] = Counter()

    async def export(request: Request) -> Response:
        form = str(request.path_params["form"])
        if form not in ENDINGS:
            words = f"There is no such format; there are: {', '.join(ENDINGS)}."
            return JSONResponse({"detail": words}, 404)
        address = address_of(request)
        if asked[address] >= PER_ADDRESS:
            return JSONResponse({"detail": "Your last export is still being made."}, 429)
        asked[address] += 1
        try:
            async with turn:
                file = await run_in_threadpool(_written, arena.store, form)
        except ArenaError as error:
            return JSONResponse({"detail": error.public}, 503)
        finally:
            asked[address] -= 1
            if not asked[address]:
                del asked[address]
        return StreamingResponse(
            iter(lambda: file.read(65_536), b""),
            media_type="application/zip",
            headers={
                "content-disposition": f'attachment; filename="empo-votes-{form}.zip"',
                "cache-control": "no-store",
            },
            background=BackgroundTask(file.close),
        )

    return Route("/export/{form}", export)


def _written(store: Store, form: str) -> BinaryIO:
    """Pack the export with its card; return it as an open file that is already deleted.

    It reads through the app's own connection: a second one could not open a database that is held
    exclusively, as on a network file system.
    """
    from empo_demo.exchange.export import card_of, write_with_card

    with tempfile.TemporaryDirectory(prefix="empo-") as folder:
        path = Path(folder) / f"empo-votes-{form}.{ENDINGS[form]}"
        write_with_card(store, form, path, public=True)
        packed = path.with_suffix(".zip")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in (path, card_of(path)):
                archive.write(part, part.name)
        return packed.open("rb")
