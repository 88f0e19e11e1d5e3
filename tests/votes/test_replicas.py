"""Replicas behind one database: they share its limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from empo_demo.errors import NotAllowed
from empo_demo.votes.store import RateLimit, Store


def test_a_limit_holds_for_replicas_that_count_at_the_same_moment(url: str) -> None:
    stores = [Store.open(url, limit=RateLimit(10, 10)) for _ in range(8)]

    def admit(number: int) -> bool:
        try:
            stores[number % len(stores)].admit("token", "203.0.113.9")
        except NotAllowed:
            return False
        return True

    assert all(admit(number) for number in range(8))
    with ThreadPoolExecutor(16) as at_once:
        assert sum(at_once.map(admit, range(80))) == 2
    for store in stores:
        store.close()
