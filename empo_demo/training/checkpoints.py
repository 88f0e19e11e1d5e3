"""Continues an interrupted training from its last complete checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError

_SETTINGS = "settings.json"


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record in `folder` what is trained; refuse checkpoints of another training.

    Values are compared as JSON. Raises a `DataError` that names the first different setting.
    """
    path = folder / _SETTINGS
    asked = json.loads(json.dumps(settings, default=str))
    if path.is_file() and any(entry != path for entry in folder.iterdir()):
        known = _read(path)
        differing = [name for name in asked if known.get(name) != asked[name]]
        if differing:
            name = differing[0]
            raise DataError(
                f"{folder} holds checkpoints of another training: {name} is {known.get(name)!r} "
                f"there and {asked[name]!r} now. Give another --output, or delete that folder."
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise DataError(f"The training cannot be written to {folder}: {error}.") from None


def last_whole(folder: Path) -> Path | None:
    """The newest complete checkpoint of a `transformers` trainer.

    The trainer writes `trainer_state.json` last. A folder without a readable one is incomplete,
    because the process died, and is removed.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -_step(path))
    for path in found:
        if _read(path / "trainer_state.json"):
            return path
        shutil.rmtree(path, ignore_errors=True)
    return None


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
