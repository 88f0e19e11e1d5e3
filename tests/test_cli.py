"""The terminal as a whole: what it lists, and that secrets stay out of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.settings import Settings
from tests.conftest import REPOSITORY


def test_settings_lists_every_variable_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPO_SECRET", "not for the screen")
    monkeypatch.setenv("EMPO_DATABASE", "postgresql://voter:hunter2@host/votes")
    said = CliRunner().invoke(app, ["settings"]).stdout
    assert all(f"EMPO_{name.upper()}=" in said for name in Settings.model_fields)
    assert "not for the screen" not in said and "hunter2" not in said


def test_the_terminal_answers_before_anything_heavy_is_imported() -> None:
    heavy = "gradio jinja2 numpy pydantic scipy sqlalchemy torch transformers"
    program = f"import sys, empo_demo.cli; print(sorted(set({heavy!r}.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"
