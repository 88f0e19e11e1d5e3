"""`space deploy` against a stand-in of the Hub: what is asked for, what is kept, what is said."""

from __future__ import annotations

import json
import os
import re
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
        "app.py": b"print('hello')\n", "README.md": b"---\nsdk: gradio\n---\n# Arena\n",
        "requirements.txt": b"# torch\ntorch>=2.8,<=2.13.0\ngradio==6.31.0\n",
        "empo_demo/arena.py": b"x = 1\n", "assets/tiny/model.safetensors": weights,
        "assets/picture.png": b"\x89PNG\0\0", "tests/test_arena.py": b"", ".ci/run": b"",
        "votes.sqlite3": b"SQLite\0",
    }  # fmt: skip
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
        f"space.plan.__kwdefaults__['root'] = Path({str(root)!r});"
        "space.deploy.__kwdefaults__['poll'] = 0.02;"
        "from empo_demo.cli import main; main()"
    )
    environment = os.environ | hub.environment() | {
        "PYTHONPATH": str(REPOSITORY), "HF_HOME": str(root.parent / "hf"), **variables,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", program, "space", "deploy", "--to", "anna/arena", *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


def body(hub: Hub, path: str) -> Any:
    return next(json.loads(b) for method, p, b in hub.requests if method == "POST" and p == path)


@pytest.mark.slow
def test_a_space_is_made_filled_and_started_and_nothing_of_its_own_is_lost(
    hub: Hub, checkout: Path
) -> None:
    zero = ("--hardware", "zero-a10g", "--dataset", "anna/votes", "--set", "EMPO_COUNTRY=de")
    done = deploy(hub, checkout, *zero, SPACE_TOKEN="hf_narrow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/spaces/anna/arena"
    made = body(hub, "/api/repos/create")
    assert (made["type"], made["sdk"], made["hardware"]) == ("space", "gradio", "zero-a10g")
    held = hub.repositories[SPACE]
    assert set(held.files) == {
        ".gitattributes", "README.md", "app.py", "assets/picture.png",
        "assets/tiny/model.safetensors", "empo_demo/arena.py", "requirements.txt",
    }  # fmt: skip
    weights = "assets/tiny/model.safetensors"
    assert held.files[weights] == (checkout / weights).read_bytes()
    assert b"\ntorch==2.11.0\ngradio==6.31.0\n" in held.files["requirements.txt"]
    assert held.variables == {"EMPO_COUNTRY": "de", "EMPO_HUB_DATASET": "anna/votes"}
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
    assert not any(path.endswith("/variables") for path in hub.paths("POST"))
    (commit,) = [b for _, p, b in hub.requests if "/commit/" in p]
    operations = [json.loads(line) for line in commit.decode().splitlines()]
    assert [o["value"].get("path") for o in operations[1:]] == ["empo_demo/arena.py"]


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
    assert not any(path.endswith("/hardware") for path in hub.paths("POST"))


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


WORKFLOW = """
import sys
from importlib import metadata
from packaging.requirements import Requirement
wanted, installed = [Requirement(word).name for word in sys.argv.pop(1).split()], set()
while wanted:
    name = wanted.pop().lower().replace("_", "-")
    if name not in installed:
        installed.add(name)
        more = [Requirement(text) for text in metadata.requires(name) or ()]
        wanted += [one.name for one in more if one.marker is None or one.marker.evaluate()]
owners = metadata.packages_distributions()
class Missing:
    def find_spec(self, name, path=None, target=None):
        of = [one.lower().replace("_", "-") for one in owners.get(name.partition(".")[0], ())]
        if of and not installed.intersection(of):
            raise ModuleNotFoundError(f"No module named {name!r}")
for name in [name for name in sys.modules if name.startswith("packaging")]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
from empo_demo.cli import main
main()
"""


def test_what_the_guides_workflow_installs_is_enough_to_deploy(checkout: Path) -> None:
    """Each package with what it requires itself, and nothing else of this environment."""
    guide = (REPOSITORY / "assets" / "guides" / "deploy.md").read_text(encoding="utf8")
    named = re.search(r"run: pip install (.+)", guide)
    assert named is not None
    packages = named[1].split()
    assert set(packages) <= set((REPOSITORY / "requirements.txt").read_text().splitlines())
    words = ["space", "deploy", "--to", "anna/arena", "--dataset", "anna/votes", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", WORKFLOW, " ".join(packages), *words],
        capture_output=True, text=True, timeout=300, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0 and "Space anna/arena" in done.stderr, done.stderr


def test_a_dry_run_asks_the_hub_nothing(hub: Hub, checkout: Path) -> None:
    dry = deploy(hub, checkout, "--dry-run", "--hardware", "zero-a10g")
    assert dry.returncode == 0 and "6 files" in dry.stderr and hub.requests == []


def test_the_requirements_fit_the_hardware() -> None:
    text = (REPOSITORY / "requirements.txt").read_text()
    zero = space.requirements(text, "zero-a10g").splitlines()
    assert "torch==2.11.0" in zero and len(zero) == len(text.splitlines())
    assert space.requirements(text, "cpu-basic").startswith("--extra-index-url https://download")
    assert space.requirements(text, "t4-small") == space.requirements(text, None) == text


def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="write owner/name"):
        space.plan("arena")
    with pytest.raises(SettingsError, match="it may hold cpu-basic"):
        space.plan("anna/arena", hardware="toaster")
    with pytest.raises(SettingsError, match="no git checkout"):
        space.plan("anna/arena", root=tmp_path)
    for name in ("../..", "anna/..", "anna/arena/x", "-a/b"):
        with pytest.raises(SettingsError, match="write owner/name"):
            space.plan(name)
    with pytest.raises(SettingsError, match="no name of a variable"):
        space.plan("anna/arena", variables={"A B\n": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_TOKEN", "hf_x"), ("EMPO_SECRET", "x"), ("OPENAI_API_KEY", "x"),
     ("EMPO_DATABASE", "postgresql://anna:pass@host/votes")],
)  # fmt: skip
def test_no_secret_becomes_a_variable_that_everyone_can_read(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is a secret") as refused:
        space.plan("anna/arena", variables={name: value})
    assert value not in str(refused.value)
    space.plan("anna/arena", variables={"EMPO_DATABASE": "sqlite:////data/votes.sqlite3"})


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
        "core.attributesFile=assets/guides/space.gitattributes",
    ]
    listed = subprocess.run([*git, "ls-files", "-z"], capture_output=True, text=True, check=True)
    names = [n for n in listed.stdout.split("\0") if n and (REPOSITORY / n).is_file()]
    asked = subprocess.run(
        [*git, "check-attr", "-z", "--stdin", "filter"],
        input="\0".join(names), capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    rows = zip(asked[::3], asked[2::3], strict=False)
    through_lfs = {name for name, value in rows if value == "lfs"}
    binary = {name for name in names if b"\0" in (REPOSITORY / name).read_bytes()}
    assert binary and through_lfs == binary
