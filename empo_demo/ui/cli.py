"""`serve`: the page, as `python app.py` starts it."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="As GRADIO_SERVER_NAME.")] = None,
    port: Annotated[int | None, typer.Option(help="As GRADIO_SERVER_PORT.")] = None,
) -> None:
    """Start the page, as `python app.py` does."""
    import os

    if host is not None:
        os.environ["GRADIO_SERVER_NAME"] = host
    if port is not None:
        os.environ["GRADIO_SERVER_PORT"] = str(port)
    from empo_demo.settings import load_settings
    from empo_demo.ui.page import launch

    launch(load_settings())
