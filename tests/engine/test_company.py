"""A reply is the same whatever is answered beside it, and whatever was answered before it."""

from __future__ import annotations

from typing import Any

import pytest

from empo_demo.engine.lockstep.kv_cache import BLOCK
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.lockstep.sampling import HEAD, Draw, Sampler
from empo_demo.engine.protocol import Decoding, Request
from tests.bench.company import count, forget, make_engine, rounds_of, texts


@pytest.fixture(scope="module")
def shipped() -> Any:
    """The embedded pair in NF4, as the arena serves it."""
    return make_engine("nf4")


@pytest.mark.slow
def test_replies_do_not_change_in_company(shipped: Any) -> None:
    found = count(shipped, rounds_of(12, 20))
    assert shipped.repeatable and found == dict.fromkeys(found, 0)


@pytest.mark.slow
def test_an_engine_says_whether_it_can_repeat_a_reply(shipped: Any) -> None:
    assert shipped.describe()["replies in company"] == "as alone"
    eight = make_engine("int8")
    assert not eight.repeatable
    assert "may differ" in eight.describe()["replies in company"]


@pytest.mark.parametrize("vocabulary", [HEAD + 1, 700])
def test_tokens_of_equal_score_have_one_order(vocabulary: int) -> None:
    """A flat mate makes the sampler look at all tokens; the other row's draw stays the same."""
    import random

    import torch

    torch.manual_seed(5)
    logits = (torch.randn(1, vocabulary) * 1.5).bfloat16().repeat(40, 1).float()
    logits = logits.round()  # many ties
    decoding, flat = Decoding(0.7, 0.9, 1.0, 1), Decoding(5.0, 1.0, 1.0, 1)
    luck = [[random.Random(i).random()] for i in range(40)]
    device = torch.device("cpu")

    def drawn(mate: bool) -> list[int]:
        draws = [Draw(decoding, one, ()) for one in luck]
        rows = logits
        if mate:
            draws.append(Draw(flat, [0.5], ()))
            rows = torch.cat([logits, torch.zeros(1, vocabulary)])
        return Sampler(draws, vocabulary, device).draw(rows)[1][:40]

    assert drawn(mate=False) == drawn(mate=True)
    assert len(set(drawn(mate=False))) > 5


def test_only_the_rows_that_need_it_are_sorted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[tuple[int, int]] = []
    sample = Sampler._sample

    def spy(self: Sampler, scores: Any, chances: Any, head: int, *rows: Any) -> Any:
        sizes.append((len(scores), head))
        return sample(self, scores, chances, head, *rows)

    monkeypatch.setattr(Sampler, "_sample", spy)
    flat, greedy = Decoding(5.0, 1.0, 1.0, 1), Decoding(0, 1.0, 1.0, 1)
    draws = [Draw(flat if i in (3, 7) else Decoding(0.1, 0.5), [0.9], ()) for i in range(30)]
    draws.append(Draw(greedy, [0.5], ()))
    torch.manual_seed(2)
    logits = torch.randn(31, 700) * 3
    tokens, read, _ = Sampler(draws, 700, torch.device("cpu")).draw(logits)
    assert sizes == [(31, HEAD), (2, 700)]
    assert tokens.view(-1).tolist() == read and read[30] == int(logits[30].argmax())
    # Each row's token is the one that it draws alone.
    for i in (0, 3, 7):
        alone = Sampler(draws[i : i + 1], 700, torch.device("cpu")).draw(logits[i : i + 1])[1]
        assert alone == [read[i]]


@pytest.mark.slow
def test_several_threads_promise_no_equal_replies(shipped: Any) -> None:
    """With two threads, attention adds one row's numbers in another order than three rows'."""
    from dataclasses import replace

    import torch

    (batch,) = shipped._batches
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert batch.weights.threads == 1 and batch.weights.repeatable
        assert not replace(batch.weights, threads=0).repeatable
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("heads", [2, 8, 14])
def test_a_rows_attention_does_not_depend_on_how_long_the_others_are(heads: int) -> None:
    """Where heads share keys, a CPU sums in an order that depends on the positions looked at."""
    import torch

    from empo_demo.engine.lockstep.attention import Decode, looked_at
    from empo_demo.engine.lockstep.forward import few_threads
    from empo_demo.engine.lockstep.kv_cache import KVCache

    torch.manual_seed(0)
    cpu, size, most = torch.device("cpu"), 16, 384
    keys, values = torch.randn(3, 2, most, size), torch.randn(3, 2, most, size)
    query, new = torch.randn(3, heads, size), torch.randn(3, 2, size)

    def attended(*lengths: int) -> Any:
        cache = KVCache(torch.float32, cpu, 2 * 2 * size * 4, 1 << 30)
        cache.reserve(3, most)
        found = cache.layer(0, new.unsqueeze(2))
        found[0][:, :, :most], found[1][:, :, :most] = keys, values
        places = torch.tensor([length - 1 for length in lengths])
        step = Decode.at(cache, torch.arange(3), places, looked_at(lengths, cpu))
        with few_threads(1):
            return step.attend(0, query, new, new, 0.25)

    alike = attended(130, 130, 130)
    for company in ((130, 60, 380), (130, 130, 250), (130, 200, 17)):
        assert torch.equal(attended(*company)[0], alike[0]), company


def turns(number: int) -> tuple[dict[str, str], ...]:
    return tuple(
        {"role": "assistant" if i % 2 else "user", "content": f"turn {i}: we got a puppy today"}
        for i in range(2 * number - 1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine_of", ["exact_engine", "quantised_engine", "shipped"])
def test_a_kept_prefix_changes_no_reply(engine_of: str, request: pytest.FixtureRequest) -> None:
    engine: LocalEngine = request.getfixturevalue(engine_of)
    decoding = Decoding(0.9, 0.95, 1.1, 12)

    def play(number: int) -> dict[str, str]:
        both = [
            Request(side, side, turns(number), decoding, number) for side in ("base", "aligned")
        ]
        return texts(engine.stream(both))

    kept = [play(number) for number in range(1, 6)]
    prefixes = engine.batch_of("base").forward.prefixes
    assert prefixes.hits > 2 * BLOCK
    fresh = []
    for number in range(1, 6):
        forget(engine)
        fresh.append(play(number))
    assert kept == fresh


def test_the_dial_has_prefixes_of_its_own(exact_engine: LocalEngine) -> None:
    """What the half-turned adapter computed never serves the base or the whole adapter."""
    greedy = Decoding(0, 1, 1.0, 12)

    def play(dial: float) -> dict[str, str]:
        return texts(
            exact_engine.stream([Request("a", "aligned", turns(4), greedy, adapter_scale=dial)])
        )

    found = []
    for _ in range(2):
        found.append([play(dial) for dial in (0.0, 0.5, 1.0)])
    forget(exact_engine)
    fresh = []
    for dial in (0.0, 0.5, 1.0):
        fresh.append(play(dial))
        forget(exact_engine)
    assert found == [fresh, fresh] and len({str(one) for one in fresh}) == 3
