"""`serve` starts the page as `python app.py` does; `page …` records what it shows at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from empo_demo.errors import DataError
from empo_demo.evaluation.dialogues import read_items
from empo_demo.metrics.valence import load_lexicon, text_valence
from empo_demo.terminal import ForceAdapter, group

page_app = group()
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Instead of the one in assets.")
]


def serve(
    host: Annotated[str | None, typer.Option(help="As GRADIO_SERVER_NAME.")] = None,
    port: Annotated[int | None, typer.Option(help="As GRADIO_SERVER_PORT.")] = None,
    force_adapter: ForceAdapter = False,
) -> None:
    """Start the page, as `python app.py` does."""
    import os

    if host is not None:
        os.environ["GRADIO_SERVER_NAME"] = host
    if port is not None:
        os.environ["GRADIO_SERVER_PORT"] = str(port)
    run(force_adapter=force_adapter or None)


def run(**overrides: Any) -> None:
    """Serve until stopped: what `serve` and `app.py` do. Only our own rooms report progress."""
    import logging

    from empo_demo.settings import check_server, load_settings

    logging.getLogger("empo_demo").setLevel(logging.INFO)
    settings = load_settings(**overrides)
    check_server()
    # A ZeroGPU Space looks for the function that this module decorates.
    import empo_demo.engine.lease  # noqa: F401
    from empo_demo.ui.page import launch

    launch(settings)


@page_app.command("rehearsal")
def rehearsal(
    seed: Annotated[int, typer.Option(help="Of the sides and the sampling.")] = 6,
    text: Annotated[
        str | None, typer.Option(help="What the person says. Default: as in the shipped round.")
    ] = None,
    output: Output = None,
) -> None:
    """Record the first screen's round from the embedded pair."""
    import tempfile

    from empo_demo.arena.arena import Arena
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.empathy.plugins import load_sem
    from empo_demo.engine.loading import load_engine
    from empo_demo.settings import load_settings
    from empo_demo.ui.arena_tab.rehearsal import REHEARSAL, record
    from empo_demo.ui.examples import REHEARSED
    from empo_demo.votes.store import Store

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(database=f"sqlite:///{folder}/votes.sqlite3", seed=seed)
        roster = load_roster(settings).only("base", "aligned")
        store = Store.of(settings)
        engine, sem = load_engine(settings, roster), load_sem(settings)
        recording = record(
            Arena(settings, roster, store, engine=engine, sem=sem), text or REHEARSED
        )
        store.close()
    _write(output or REHEARSAL, recording)
    for side, reply in recording["replies"].items():
        typer.echo(f"{side} ({recording['contenders'][side]['contender']}): {reply}")


@page_app.command("people")
def people(
    data: Annotated[Path, typer.Argument(help="empathetic_dialogues.valid.jsonl.gz")],
    limit: Annotated[int | None, typer.Option(help="Only the first N dialogues.")] = None,
    output: Output = None,
) -> None:
    """Measure how people reply: the pale bands behind the plots. Figures only, no text."""
    from empo_demo.empathy.sem import EmbeddedSEM
    from empo_demo.ui.drawing.plots import PEOPLE, measure

    items = read_items(data, limit).items
    whole = [item.context.plus("assistant", item.reference) for item in items]
    lexicon, sem = load_lexicon(), EmbeddedSEM()
    bands = measure(
        whole,
        {
            "vader": lambda texts: [text_valence(text, lexicon) for text in texts],
            "sem": lambda texts: [feeling.valence for feeling in sem.feelings(texts)],
        },
    )
    _write(output or PEOPLE, bands)
    typer.echo(json.dumps(bands))


def _write(path: Path, value: object) -> None:

    try:
        path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
