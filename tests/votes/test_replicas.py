"""Replicas of the app behind one PostgreSQL; `python -m tests.bench.replicas` plays 200 rounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from empo_demo.errors import NotAllowed
from empo_demo.votes.store import RateLimit, Store
from tests import postgres as postgresql
from tests.bench.replicas import run


@pytest.mark.slow
def test_visitors_who_switch_replicas_lose_nothing(postgres: postgresql.Server) -> None:
    found = run(postgres.new_database(), rounds=9, replicas=3, visitors=3)
    assert found["rounds"] == 9
    assert (found["lost"], found["doubled"], found["broken"]) == (0, 0, 0)
    assert found["let_in"] == found["limit"]


def test_a_limit_holds_for_replicas_that_count_at_the_same_moment(url: str) -> None:
    stores = [Store.open(url, limit=RateLimit(10, 10)) for _ in range(8)]

    def admit(number: int) -> bool:
        try:
            stores[number % len(stores)].limits.admit("token", "203.0.113.9")
        except NotAllowed:
            return False
        return True

    assert all(admit(number) for number in range(8))
    with ThreadPoolExecutor(16) as at_once:
        assert sum(at_once.map(admit, range(80))) == 2
    for store in stores:
        store.close()
