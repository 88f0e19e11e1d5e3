"""`space deploy` against a stand-in of the Hub: what is asked for, what is kept, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empo_demo.errors import SettingsError
from empo_demo.exchange import space
from tests.conftest import REPOSITORY
from tests.hub import Hub, running

SPACE = "space/anna/arena"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as started:
        yield started


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout of the same shape; one large file, and some that the app does not need."""
    root = tmp_path / "checkout"
    weights = b"\0weights" * 200_000
    files = {
        "app.py": b"print('hello')\n",
        "README.md": b"---\nsdk: gradio\n---\n# Arena\n",
        "requirements.txt": b"# torch\ntorch>=2.8,<=2.13.0\ngradio==6.31.0\n",
        "empo_demo/arena.py": b"x = 1\n",
        "assets/tiny/model.safetensors": weights,
        "assets/picture.png": b"\x89PNG\0\0",
        "tests/test_arena.py": b"",
        ".ci/run": b"",
        "votes.sqlite3": b"SQLite\0",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "notes.txt").write_text("untracked")
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", *files], check=True)
    return root


def deploy(
    hub: Hub, root: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command itself, in a process of its own, with `root` in the place of the checkout."""
    program = (
        "import sys; from pathlib import Path; from empo_demo.exchange import space;"
        f"space.deploy.__kwdefaults__['root'] = Path({str(root)!r});"
        "space.deploy.__kwdefaults__['poll'] = 0.02;"
        "from empo_demo.cli import main; main()"
    )
    environment = (
        os.environ
        | hub.environment()
        | {
            "PYTHONPATH": str(REPOSITORY),
            "HF_HOME": str(root.parent / "hf"),
            **variables,
        }
    )
    return subprocess.run(
        [sys.executable, "-c", program, "space", "deploy", "--to", "anna/arena", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def body(hub: Hub, path: str) -> Any:
    return next(json.loads(b) for method, p, b in hub.requests if method == "POST" and p == path)


@pytest.mark.slow
def test_a_space_is_made_filled_and_started_and_nothing_of_its_own_is_lost(
    hub: Hub, checkout: Path
) -> None:
    sets = ("--dataset", "anna/votes", "--backup", "anna/backup")
    zero = ("--hardware", "zero-a10g", *sets, "--set", "EMPO_COUNTRY=de")
    done = deploy(hub, checkout, *zero, SPACE_TOKEN="hf_narrow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/spaces/anna/arena"
    made = body(hub, "/api/repos/create")
    assert (made["type"], made["sdk"], made["hardware"]) == ("space", "gradio", "zero-a10g")
    held = hub.repositories[SPACE]
    assert set(held.files) == {
        ".gitattributes",
        "README.md",
        "app.py",
        "assets/picture.png",
        "assets/tiny/model.safetensors",
        "empo_demo/arena.py",
        "requirements.txt",
    }
    weights = "assets/tiny/model.safetensors"
    assert held.files[weights] == (checkout / weights).read_bytes()
    assert b"\ntorch==2.11.0\ngradio==6.31.0\n" in held.files["requirements.txt"]
    assert held.variables == {
        "EMPO_COUNTRY": "de",
        "EMPO_HUB_DATASET": "anna/votes",
        "EMPO_HUB_BACKUP": "anna/backup",
    }
    assert hub.repositories["dataset/anna/backup"].private
    assert held.secrets == {"HF_TOKEN": "hf_narrow"} and "hf_narrow" not in done.stderr
    assert held.restarts == 1 and held.polls >= 2 and "dataset/anna/votes" in hub.repositories
    puts = len(hub.paths("PUT"))
    assert puts == 2, "the two binary files went through LFS, one request each"

    held.files["data/votes.jsonl"] = b"{}\n"
    (checkout / "empo_demo" / "arena.py").write_text("x = 2\n")
    hub.requests.clear()
    again = deploy(hub, checkout, *zero)
    assert again.returncode == 0, again.stderr
    assert (
        held.files["data/votes.jsonl"] == b"{}\n" and held.files["empo_demo/arena.py"] == b"x = 2\n"
    )
    assert hub.paths("PUT") == [], "unchanged weights are not sent again"
    commits = [b for _, p, b in hub.requests if "/commit/" in p]
    lines = [json.loads(line) for commit in commits for line in commit.decode().splitlines()]
    paths = [line["value"].get("path") for line in lines if line["key"] != "header"]
    assert paths == ["empo_demo/arena.py"], "unchanged files are not sent again"


@pytest.mark.slow
def test_a_second_deployment_keeps_the_torch_of_the_spaces_own_hardware(
    hub: Hub, checkout: Path
) -> None:
    """As the guide's workflow runs it: nothing is said about the hardware."""
    assert deploy(hub, checkout, "--hardware", "zero-a10g").returncode == 0
    (checkout / "requirements.txt").write_text("torch>=2.8,<=2.13.0\ngradio==6.32.0\n")
    again = deploy(hub, checkout)
    assert again.returncode == 0, again.stderr
    held = hub.repositories[SPACE]
    assert held.files["requirements.txt"] == b"torch==2.11.0\ngradio==6.32.0\n"
    assert held.hardware == "zero-a10g"


@pytest.mark.slow
def test_a_broken_upload_goes_on_where_it_stopped(hub: Hub, checkout: Path) -> None:
    hub.refuse = {"/commit/": 500}
    broken = deploy(hub, checkout)
    assert broken.returncode == 2 and "Run the command again" in broken.stderr.splitlines()[-1]
    assert "Traceback" not in broken.stderr
    sent = hub.paths("PUT")
    assert sent and SPACE in hub.repositories
    hub.refuse.clear()
    hub.requests.clear()
    hub.stage = "BUILD_ERROR"
    failed = deploy(hub, checkout, "--dataset", "anna/votes")
    assert hub.paths("PUT") == [], "what had arrived is not sent again"
    assert (
        failed.returncode == 2 and "BUILD_ERROR" in failed.stderr and "logs=build" in failed.stderr
    )
    hub.stage = "RUNNING"
    done = deploy(hub, checkout, "--dataset", "anna/votes")
    assert done.returncode == 0 and "needs a secret HF_TOKEN" in done.stderr
    hub.refuse = {"/api/repos/create": 402, "/api/spaces/anna/arena": 404}
    unpaid = deploy(hub, checkout, "--hardware", "cpu-basic")
    assert "a free account may use --hardware zero-a10g" in unpaid.stderr.splitlines()[-1]


def test_the_requirements_fit_the_hardware() -> None:
    text = (REPOSITORY / "requirements.txt").read_text()
    zero = space.requirements(text, "zero-a10g").splitlines()
    assert "torch==2.11.0" in zero and len(zero) == len(text.splitlines())
    assert space.requirements(text, "cpu-basic").startswith("--extra-index-url https://download")
    assert space.requirements(text, "t4-small") == space.requirements(text, None) == text


def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(SettingsError, match="it may hold cpu-basic"):
        space.deploy("anna/arena", hardware="toaster")
    with pytest.raises(SettingsError, match="--backup holds 'anna/votes', where the votes are"):
        space.deploy("anna/arena", dataset="anna/votes", backup="anna/votes")
    inside = tmp_path / "other" / "site-packages"
    inside.mkdir(parents=True)
    (inside / "requirements.txt").write_text("x")
    subprocess.run(["git", "-C", str(inside.parent), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(inside), "add", "."], check=True)
    with pytest.raises(SettingsError, match="is not a git checkout"):
        space.deploy("anna/arena", root=inside)
    with pytest.raises(SettingsError, match="is not a git checkout"):
        space.deploy("anna/arena", root=tmp_path)
    for name in ("../..", "anna/arena/x", "-a/b"):
        with pytest.raises(SettingsError, match="write owner/name"):
            space.deploy(name)
    with pytest.raises(SettingsError, match="is not a name of a variable"):
        space.check_variables({"A B\n": "1"})
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "hf_x"),
        ("EMPO_SECRET", "x"),
        ("OPENAI_API_KEY", "x"),
        ("EMPO_DATABASE", "postgresql://anna:pass@host/votes"),
    ],
)
def test_no_secret_becomes_a_variable_that_everyone_can_read(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is a secret") as refused:
        space.check_variables({name: value})
    assert value not in str(refused.value)
    space.check_variables({"EMPO_DATABASE": "sqlite:////data/votes.sqlite3"})


def test_the_tracked_files_hold_all_that_the_app_reads_and_no_tests() -> None:
    names = space.tracked(REPOSITORY)
    assert {"app.py", "empo_demo/ui/page.py", "assets/contenders/tiny.toml"} <= set(names)
    assert not any(name.startswith(("tests/", ".")) for name in names)


def test_the_guides_attributes_put_every_binary_file_and_no_other_through_lfs() -> None:
    """For those who push by hand: the Hub takes no other binary file, and no pointer for a text."""
    git = [
        "git",
        "-C",
        str(REPOSITORY),
        "-c",
        "core.attributesFile=docs/space.gitattributes",
    ]
    listed = subprocess.run([*git, "ls-files", "-z"], capture_output=True, text=True, check=True)
    names = [n for n in listed.stdout.split("\0") if n and (REPOSITORY / n).is_file()]
    asked = subprocess.run(
        [*git, "check-attr", "-z", "--stdin", "filter"],
        input="\0".join(names),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    rows = zip(asked[::3], asked[2::3], strict=False)
    through_lfs = {name for name, value in rows if value == "lfs"}
    binary = {name for name in names if b"\0" in (REPOSITORY / name).read_bytes()}
    assert binary and through_lfs == binary
