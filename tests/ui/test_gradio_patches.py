"""Gradio's insides are what they were when the patches of them were written."""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import empo_demo

RELIED_ON = {
    "gradio.blocks.Blocks.preprocess_data": ("6848b88bd303", "Page overrides it"),
    "gradio.blocks.Blocks.queue": ("122b569a1f28", "install_lanes puts LaneQueue in its place"),
    "gradio.blocks.BlockFunction.__init__": ("620229797008", "lanes and progress_only_on set it"),
    "gradio.queueing.Queue.__init__": ("8f39a4352e7c", "LaneQueue adds to it"),
    "gradio.queueing.Queue.push": ("c7b4091f41b8", "LaneQueue refuses before it"),
    "gradio.queueing.Queue.send_message": ("79d70f866b09", "Unread takes its messages"),
    "gradio.queueing.Queue.compute_analytics_summary": ("fce570ad9e7b", "LaneQueue empties it"),
    "gradio.queueing.Queue.clean_events": ("ee8f9ecc8240", "it ends what Unread gave up"),
    "gradio.queueing.EventQueue": ("ae8e305d17b4", "LaneQueue counts who waits in it"),
    "gradio.routes.App.create_app": ("24a2d31a4bda", "its routes read Unread; walled wraps it"),
    "gradio.components.api_component.Api": ("6fd143c8629a", "the endpoints give it types"),
    "gradio.route_utils.FnIndexInferError": ("16649458da58", "the Guard explains it"),
    "gradio.oauth._get_valid_oauth_info_from_session": ("2f2815d58c0e", "user_of asks it"),
    "gradio.events.EventData": ("c4703de66f6c", "the examples read its _data"),
    "gradio_client.utils.traverse": ("f28947e0bba4", "Page looks for files with it"),
    "gradio_client.utils.is_file_obj_with_meta": ("9020a636fb9b", "Page knows files by it"),
    "starlette.applications.Starlette.build_middleware_stack": ("aca3f8e780a2", "walled calls it"),
}
"""Each part with the start of the SHA-256 of its source, and what relies on it."""
PRIVATE = (
    r"\._queue\b|\bfrom gradio\.(?!themes)|\bimport gradio\.|middleware_stack|show_progress_on"
)


@pytest.mark.parametrize("name", RELIED_ON)
def test_gradio_is_what_the_patches_were_written_for(name: str) -> None:
    digest, why = RELIED_ON[name]
    source = inspect.getsource(pkgutil.resolve_name(name))
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == digest, (
        f"{name} has changed ({why}): read what changed, mend the patch, then note the new digest"
    )


def test_no_other_file_reaches_into_gradio() -> None:
    """But for two that only read: the login's name, and the error of an unknown endpoint."""
    known = {"gradio_patches.py", "visitors.py", "middleware.py"}
    root = Path(empo_demo.__file__).parent
    found = {path.name for path in root.rglob("*.py") if re.search(PRIVATE, path.read_text("utf8"))}
    assert found == known
