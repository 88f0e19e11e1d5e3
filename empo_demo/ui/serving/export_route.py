"""Downloads of exports. Each request makes a new one, and no file is left.

A file that the page had prepared would outlive "Delete my data"; here nothing does. A vote is in
no download before it may be published.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from empo_demo.errors import ArenaError
from empo_demo.ui.visitors import address_of

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.votes.store import Store

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
        name = f"empo-votes-{form}.{ENDINGS[form]}"
        return StreamingResponse(
            iter(lambda: file.read(65_536), b""),
            media_type="application/octet-stream",
            headers={
                "content-disposition": f'attachment; filename="{name}"',
                "cache-control": "no-store",
            },
            background=BackgroundTask(file.close),
        )

    return Route("/export/{form}", export)


def _written(store: Store, form: str) -> BinaryIO:
    """Write the export and return it as an open file that is already deleted.

    It reads through the app's own connection: a second one could not open a database that is held
    exclusively, as on a network file system.
    """
    from empo_demo.exchange.export import write_export

    with tempfile.TemporaryDirectory(prefix="empo-") as folder:
        path = Path(folder) / form
        write_export(store, form, path, public=True)
        return path.open("rb")
