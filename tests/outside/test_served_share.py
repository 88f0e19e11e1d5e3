"""A seeded part of the table of tests/bench/served_share.py: equal to PEFT, or refused in words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench.served_share import EQUAL, PLAIN, configurations, outcome

FIRST = list(configurations(60, seed=0))
CHOSEN = random.Random(1).sample(FIRST[: len(EQUAL)], 6) + FIRST[len(EQUAL) : len(EQUAL) + 4]


@pytest.mark.parametrize(("kind", "adapter", "bits"), CHOSEN)
def test_a_configuration_is_served_as_peft_has_it_or_refused(
    kind: str, adapter: str, bits: str, tmp_path: Path
) -> None:
    result, why = outcome(kind, adapter, bits, tmp_path)
    assert result != "WRONG", why
    if kind in EQUAL and adapter in PLAIN:
        assert result == "served", why
