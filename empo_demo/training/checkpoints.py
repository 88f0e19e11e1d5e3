"""Going on after an interruption: from the last whole checkpoint, and only of the same training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError

_SETTINGS = "settings.json"


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note in `folder` what is being trained; refuse to go on with checkpoints of anything else.

    Values are compared as JSON. Raises `DataError` that names the first setting that differs.
    """
    path = folder / _SETTINGS
    asked = json.loads(json.dumps(settings, default=str))
    if path.is_file() and any(entry != path for entry in folder.iterdir()):
        kept = _read(path)
        differing = [name for name in asked if kept.get(name) != asked[name]]
        if differing:
            name = differing[0]
            raise DataError(
                f"{folder} holds checkpoints of another training: {name} is {kept.get(name)!r} "
                f"there and {asked[name]!r} now. Give another --output, or delete that folder."
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise DataError(f"The training cannot be written to {folder}: {error}.") from None


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a `transformers` trainer that was written to its end.

    The trainer writes `trainer_state.json` last; folders without a readable one were being
    written when the process died, and are removed.
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
    """The object in a JSON file; empty where it is missing or cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
