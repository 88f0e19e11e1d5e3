"""One name for an output, the version, progress in a pipe, and libraries that keep quiet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from empo_demo import __version__, progress
from empo_demo.cli import app
from empo_demo.settings import Settings
from tests.conftest import REPOSITORY


def commands(group: Any, name: str = "") -> Any:
    for part, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, f"{name} {part}")
        else:
            yield f"{name} {part}".strip(), one


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_an_output_has_one_name_everywhere(name: str) -> None:
    """`--output`, with `-o`; its old name is in no help, and neither is a file without a name."""
    options = [p for p in ALL[name].params if isinstance(p, click.Option) or hasattr(p, "opts")]
    for option in options:
        assert "--out" not in option.opts
        if option.name == "output":
            assert {"--output", "-o"} <= set(option.opts)


def test_the_old_name_of_an_output_is_still_taken(tmp_path: Path) -> None:
    for out in (["--out", str(tmp_path / "x")], [f"--out={tmp_path / 'x'}"]):
        done = CliRunner().invoke(app, ["preferences", "build", "--data", str(tmp_path), *out])
        assert "There is no empathetic_dialogues.train" in str(done.exception)
    report = CliRunner().invoke(
        app, ["votes", "backup", str(tmp_path / "b"), "--database", f"sqlite:///{tmp_path}/none"]
    )
    assert "There is no database" in str(report.exception)


def test_the_version_is_said() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout == f"empo-demo {__version__}\n"


@pytest.mark.parametrize(
    ("option", "value"), [("split", "test"), ("source", "x"), ("opposites", "y")]
)
def test_the_wrong_option_is_named(tmp_path: Path, option: str, value: str) -> None:
    arguments = ["preferences", "build", "-o", str(tmp_path / "x"), f"--{option}", value]
    done = CliRunner().invoke(app, arguments)
    assert f"--{option} is {value!r}; it may be" in str(done.exception)


FORCED = {
    "compare": ["hello"],
    "evaluate generate": ["--contender", "base", "--data", "d", "-o", "o"],
    "evaluate retention": ["--contender", "aligned", "--tasks", "{yaml}"],
    "loop": [],
    "contenders prepare": [],
    "serve": [],
}


@pytest.mark.parametrize("name", FORCED)
def test_an_adapter_of_another_base_can_be_forced_wherever_one_is_loaded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def made(_: Settings, **given: Any) -> None:
        raise Asked(given.get("force_adapter"))

    # A patched `load_settings` would stay in what a command imports only now.
    monkeypatch.setattr(Settings, "__init__", made)
    yaml = REPOSITORY / "assets" / "retention" / "everyday.yaml"
    values = [value.format(yaml=yaml) for value in FORCED[name]]
    for option, expected in (["--force-adapter"], True), ([], None):
        done = CliRunner().invoke(app, [*name.split(), *values, *option])
        assert isinstance(done.exception, Asked), done.output
        assert done.exception.args == (expected,)


def test_in_a_pipe_a_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.1)
    lines: list[str] = []
    for number, _ in enumerate(progress.progress([1, 2], "scoring")):
        deadline = time.monotonic() + 30
        while len(lines) <= number and time.monotonic() < deadline:
            time.sleep(0.02)
            told = capsys.readouterr().err.splitlines()
            lines += [line for line in told if line.startswith(f"scoring: {number} of 2 done, ")]
    assert len(lines) >= 2 and lines[0].startswith("scoring: 0 of 2 done, ")
    assert lines[-1].startswith("scoring: 1 of 2 done, ")


def test_an_amount_in_a_pipe_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)
    told = ""

    def wait_for(line: str) -> None:
        nonlocal told
        deadline = time.monotonic() + 30
        while line not in told and time.monotonic() < deadline:
            time.sleep(0.02)
            told += capsys.readouterr().err
        assert line in told

    with progress.amount("Merging x") as report:
        wait_for("Merging x: begun, 0 s\n")
        report(1_500_000_000, 14_483_000_000)
        wait_for("Merging x: 1.50 of 14.48 GB done, ")
    with progress.amount("Decomposing", in_bytes=False) as report:
        report(3, 224)
        wait_for("Decomposing: 3 of 224 done, ")
    assert not set("\r\x1b") & set(told)


def test_an_amount_that_took_long_ends_with_its_last_line_even_if_no_other_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a busy machine the thread that speaks may not be woken in time; here it never is."""
    clock = iter(range(0, 1000, 7))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.threading, "Thread", lambda **_: Idle())
    with progress.amount("Downloading x") as report:
        report(700_000_000, 700_000_000)
    told = capsys.readouterr().err
    assert told == "Downloading x: 0.70 of 0.70 GB done, 14 s\n"
    monkeypatch.setattr(progress, "EVERY", 1e6)
    with progress.amount("Downloading x") as report:
        report(1, 1)
    assert capsys.readouterr().err == "", "what is short says nothing"


BARS = """
from empo_demo.progress import amount, progress
with amount("Merging [x]") as report:
    report(250_000_000, 500_000_000)
for _ in progress(range(4), "scoring"):
    pass
"""


def test_on_a_terminal_both_kinds_are_bars_that_go_away() -> None:
    import pty

    ours, theirs = pty.openpty()
    ran = subprocess.run([sys.executable, "-c", BARS], stderr=theirs, cwd=REPOSITORY, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert ran.returncode == 0
    assert "Merging [x]" in shown and "250.0/500.0 MB" in shown
    assert "scoring" in shown and "3/4" in shown and "done" not in shown
    assert shown.endswith("\x1b[2K"), "the last line is cleared"


class Idle:
    """A thread that does nothing."""

    def start(self) -> None: ...

    def join(self) -> None: ...


def test_an_error_in_a_pipe_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "replies.csv"
    file.write_text("nothing\n1\n")
    ran = subprocess.run(
        [sys.executable, "-m", "empo_demo", "score", "--predictions", str(file)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
    )
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith("Error: ") and ran.stderr.count("\n") == 1, ran.stderr


QUIET = """
import logging, sys
from empo_demo.terminal import configure_logging
configure_logging(logging.INFO, verbose={verbose})
for name in ("alembic.runtime.plugins", "bitsandbytes.backends.cpu", "transformers.tokenization"):
    logging.getLogger(name).info("plugin")
    logging.getLogger(name).warning("Failed to load")
from transformers.utils import logging as theirs
theirs.get_logger("transformers.tokenization_utils_base").warning("311 > 256")
import trl.experimental
logging.getLogger("empo_demo.x").info("ours")
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_libraries_keep_quiet_unless_asked(verbose: bool) -> None:
    # Earlier tests may have set it in this process.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TRL_")}
    ran = subprocess.run(
        [sys.executable, "-c", QUIET.format(verbose=verbose)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        env=bare,
    )
    assert "ours" in ran.stderr
    for noise in ("plugin", "Failed to load", "TRLExperimentalWarning"):
        assert (noise in ran.stderr) is verbose, ran.stderr
    assert verbose or "311 > 256" not in ran.stderr
