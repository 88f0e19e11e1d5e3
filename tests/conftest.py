"""What every test may use: where the shared data lies, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data() -> Path:
    """The folder of the research data, which is no part of the repository."""
    return Path(os.environ.get("EMPO_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The research data, or a skip that says what is missing."""
    folder = shared_data()
    if not (folder / "empathetic_dialogues.valid.jsonl.gz").is_file():
        pytest.skip(f"the research data is not at {folder}; set EMPO_TEST_DATA to its folder")
    return folder
