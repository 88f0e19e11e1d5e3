"""What the page's layout asks of a browser before anything is clicked."""

from __future__ import annotations

from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.ui.page import build


@pytest.fixture
def config(arena: Arena) -> dict[str, Any]:
    return build(arena, load_lexicon()).get_config_file()


def test_a_frame_of_a_stream_is_not_noted_on_every_output(config: dict[str, Any]) -> None:
    """Gradio's script copies each of these components at each frame, of all earlier calls too."""
    silent = [one for one in config["dependencies"] if one["show_progress"] == "hidden"]
    assert len(silent) > 20
    assert {len(one["show_progress_on"] or one["outputs"]) for one in silent} == {1}


def test_no_tab_brings_markdown_with_its_highlighter_of_code(config: dict[str, Any]) -> None:
    assert "markdown" not in {one["type"] for one in config["components"]}


def test_each_endpoint_says_what_it_takes_and_answers(arena: Arena) -> None:
    found = build(arena, load_lexicon()).get_api_info()["named_endpoints"]
    assert len(found) > 12
    for name, endpoint in found.items():
        assert len(endpoint["description"].split()) > 3, name
        parts = [*endpoint["parameters"], *endpoint["returns"]]
        for part in parts:
            assert part["python_type"]["type"] != "Any", (name, part)
            assert len(part["python_type"]["description"].split()) > 2, (name, part)
    opened = {
        one["label"]: one["python_type"]["type"] for one in found["/open_round"]["parameters"]
    }
    assert list(opened) == ["voter", "dialogue", "text", "consent"]
    assert "role" in opened["dialogue"]
    verdict = found["/vote"]["parameters"][2]
    assert verdict["python_type"]["type"] == "Literal['a', 'tie', 'both_bad', 'b']"


def test_a_page_whose_models_are_ready_asks_nothing_by_itself(config: dict[str, Any]) -> None:
    timers = [one["props"]["active"] for one in config["components"] if one["type"] == "timer"]
    assert timers == [False, False]
