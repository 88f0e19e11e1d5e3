"""A wrong host or port is one line and exit code 2, before anything is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRADIO_SERVER_PORT", "abc"),
        ("GRADIO_SERVER_PORT", "0"),
        ("GRADIO_SERVER_PORT", "70000"),
        ("GRADIO_SERVER_PORT", ""),
        ("GRADIO_SERVER_NAME", "999.1.1.1"),
        ("GRADIO_SERVER_NAME", "8.8.8.8"),
    ],
)
def test_a_wrong_host_or_port_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "app.py")],
        env={**os.environ, name: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    (line,) = ended.stderr.strip().splitlines()
    assert ended.returncode == 2
    assert line.startswith(f"Error: {name} holds '{value}'; it may hold")
    assert list(tmp_path.iterdir()) == [], "no database was made"
