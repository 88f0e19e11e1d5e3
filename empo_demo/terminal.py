"""Shared by the commands of all rooms: options with one name and meaning, and logging.

Every command writes to `--output` (`-o`). `--out`, its name in earlier versions, still works.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from empo_demo.errors import ArenaError, InvalidInput

AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]
ForceAdapter = Annotated[
    bool, typer.Option("--force-adapter", help="Accept an adapter of another base model.")
]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")]

LIBRARIES = (
    "accelerate",
    "alembic",
    "bitsandbytes",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "openai",
    "peft",
    "transformers",
    "trl",
)
"""Libraries whose log messages do not help a user; `-v` shows them."""


class Command(TyperCommand):
    """A command that accepts `--out` for `--output`, without a line in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(
            ctx,
            [
                f"--output{arg[5:]}" if arg == "--out" or arg[:6] == "--out=" else arg
                for arg in args
            ],
        )


def group(help: str | None = None) -> typer.Typer:
    """An empty group of commands, without rich's panels and tracebacks."""
    return typer.Typer(
        help=help, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )


def run(app: typer.Typer) -> None:
    """Run a command; show an `ArenaError` as one line and end with code 2."""
    try:
        app()
    except ArenaError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def named_output(output: Path | None, file: Path | None) -> Path:
    """The file of `--output`, or the positional argument of earlier versions."""
    if output is None and file is None:
        raise InvalidInput("Name the file to write: --output FILE.")
    return output or file or Path()


def configure_logging(level: int = logging.WARNING, *, verbose: bool = False) -> None:
    """Log to stderr from `level` on; messages of libraries only if `verbose`."""
    logging.basicConfig(
        level=logging.INFO if verbose else level, format="%(levelname)s %(name)s: %(message)s"
    )
    if verbose:
        return
    if not sys.stderr.isatty():
        # In a pipe, our own progress writes a line every ten seconds.
        for bars in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(bars, "1")
    # transformers and trl read these when they are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
