"""The wheel is complete: installed away from the clone, it serves the page and a whole round."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from empo_demo.exchange.space import tracked
from empo_demo.settings import ROOT

pytestmark = pytest.mark.slow
PIP = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
BUILT_FROM = ("setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, as a clean clone has them, with this setuptools."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in {*tracked(ROOT), *BUILT_FROM}:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(target), str(source)]
    subprocess.run(build, check=True)
    shutil.rmtree(source)
    (built,) = target.glob("empo_demo-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    subprocess.run(
        [*PIP, "--python", str(interpreter), "install", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.fixture(scope="module")
def address(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python -m empo_demo serve` in an empty folder, ready to answer."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EMPO_", "GRADIO_SERVER", "PYTHONPATH"))
    }
    # The tiny pair lies in the wheel itself; the default one may be fetched at the first start.
    environment["EMPO_PRESET"] = "tiny"
    serve = [str(python), "-m", "empo_demo", "serve", "--port", str(port)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(serve, cwd=folder, env=environment, stdout=log, stderr=log) as server,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            while not _ready(url):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.3)
            yield url
        finally:
            server.terminate()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_wheel_holds_every_file_of_the_package_and_its_assets(wheel: Path) -> None:
    package = [name for name in tracked(ROOT) if name.startswith("empo_demo/")]
    assets = [f"empo_demo/{name}" for name in tracked(ROOT) if name.startswith("assets/")]
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted([*package, *assets])


def test_its_package_and_its_assets_are_not_those_of_the_clone(
    python: Path, tmp_path: Path
) -> None:
    program = "from empo_demo.settings import ASSETS, PACKAGE; print(ASSETS == PACKAGE / 'assets')"
    command = [str(python), "-c", f"{program}; print(PACKAGE)"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    where, package = said.stdout.split()
    assert where == "True" and Path(package).is_relative_to(python.parent.parent)


def test_the_installed_page_shows_itself_and_answers_a_round(address: str) -> None:
    shown = httpx.get(address).text
    assert '"title":"EmPO Arena"' in shown
    looks = set(re.findall(r"look/[\w.-]+", shown))
    assert "look/mark.svg" in looks
    assert {httpx.get(f"{address}/{look}").status_code for look in looks} == {200}
    arena = Client(address, verbose=False)
    voter = arena.predict(api_name="/new_voter")
    consent = arena.predict(api_name="/consent")["version"]
    opened = arena.predict(voter, [], "I lost my keys again.", consent, api_name="/open_round")
    *_, last = arena.submit(voter, opened["round_id"], api_name="/stream")
    assert all(last[side].strip() and last["finished"][side] for side in ("a", "b")), last
    receipt = arena.predict(voter, opened["round_id"], "a", {}, "", api_name="/vote")
    assert receipt["created"]
    assert receipt["reveal"]["a"]["contender"] != receipt["reveal"]["b"]["contender"]
