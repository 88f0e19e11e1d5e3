"""The Space's entry point: settings -> arena -> page -> launch. `python app.py` runs it here."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> None:
    """Serve until stopped; a wrong setting is one line and exit code 2."""
    from empo_demo.errors import ArenaError
    from empo_demo.settings import unknown_variables
    from empo_demo.terminal import configure_logging
    from empo_demo.ui.cli import run

    configure_logging(verbose="-v" in sys.argv)
    for line in unknown_variables():
        print(f"Note: {line}", file=sys.stderr)
    try:
        run()
    except ArenaError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
