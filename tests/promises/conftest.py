"""The page of the promises that are kept there, and the Hub of those about what is published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.conftest import Served, Stranger, serve
from tests.exchange import conftest as exchange

hub = exchange.hub


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("page"), rounds_per_voter=1000)


@pytest.fixture
def stranger(served: Served) -> Stranger:
    return Stranger(served.url)
