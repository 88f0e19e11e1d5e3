"""A small HTTP server in this process: quiet, and quick to answer and to end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """What answers; a subclass says how."""

    # Else the second of two small packets waits 40 ms until the first was confirmed.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(handler: type[Handler]) -> Iterator[str]:
    """A server on a free port; its address. Requests that are still being answered are left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # It looks so often whether it should end: half a second, as usual, adds up over the tests.
    options = {"poll_interval": 0.01}
    threading.Thread(target=server.serve_forever, kwargs=options, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
