"""The shipped tiny base with other files beside its weights, as people bring them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empo_demo.settings import ASSETS

TINY = ASSETS / "tiny" / "base"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the tiny base with another template, or other settings of its tokenizer."""

    def change(template: str | None = None, **settings: Any) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(TINY, folder)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf8")
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text("utf8")) | settings
        path.write_text(json.dumps(config), encoding="utf8")
        return folder

    return change
