"""Our own layers of a Llama compute what its code computes, by whichever kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from empo_demo.contenders.roster import Contender
from empo_demo.engine.loader import Loader
from empo_demo.engine.lockstep import own_passes
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.lockstep.sampling import HEAD, best_of
from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.engine.weights import model_weights
from empo_demo.engine.weights.lora import FEW, GROUP, FourBits, Linear
from tests.bench.company import count, make_engine, rounds_of
from tests.outside.made import TEXT, TOKENS, make_adapter, make_model, own


@pytest.fixture(autouse=True)
def own_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = "empo_demo.engine.assembly.copies._root"
    monkeypatch.setattr(root, lambda: tmp_path / "verdicts")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loaded(base: Path, adapter: Path | None = None, dtype: str = "float32") -> LocalEngine:
    loader = Loader("cpu", "none")
    loader.dtype = dtype
    contenders = [Contender("base", str(base))]
    if adapter is not None:
        contenders.append(Contender("aligned", str(base), str(adapter)))
    return LocalEngine(loader.load(contenders), loader.notes)


def replies(engine: LocalEngine, **dials: float) -> dict[str, str]:
    """The greedy replies of contenders at the given dials, in one batch."""
    said = ({"role": "user", "content": TEXT},)
    decoding = Decoding(0.0, 1.0, 1.0, TOKENS)
    asked = [Request(who, who, said, decoding, adapter_scale=dial) for who, dial in dials.items()]
    events = engine.stream(asked)
    return {event.side: event.text.strip() for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize("kind", own_passes.KINDS)
def test_a_pair_says_what_transformers_and_peft_say(kind: str, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", kind, vocab_size=8256)  # Qwen2 adds a token
    adapter = make_adapter(base, tmp_path / "adapter")
    engine = loaded(base, adapter)
    assert engine.model_of("base").way == "fused"
    said = replies(engine, base=1.0, aligned=1.0)
    assert said == {"base": own(base), "aligned": own(base, adapter)}
    assert said["base"] != said["aligned"]
    assert replies(engine, base=1.0, aligned=0.0)["aligned"] == said["base"]


def test_an_adapter_of_some_layers_says_what_peft_says(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = make_adapter(
        base, tmp_path / "adapter", target_modules=["q_proj", "v_proj", "up_proj"]
    )
    engine = loaded(base, adapter)
    assert engine.model_of("aligned").way == "fused"
    assert replies(engine, aligned=1.0)["aligned"] == own(base, adapter)


def test_an_adapter_of_the_head_says_what_peft_says(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    assert replies(loaded(base, adapter), aligned=1.0)["aligned"] == own(base, adapter)


def test_layers_that_compute_something_else_do_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model(tmp_path / "base", "llama")
    monkeypatch.setattr(
        own_passes, "_order", lambda turned, values, _: torch.arange(turned + values)
    )
    engine = loaded(base)
    assert engine.model_of("base").way == "batch"
    assert "with ours its logits differ" in engine.describe()["trial of base"]
    assert replies(engine, base=1.0)["base"] == own(base)


def four_bit(outputs: int, inputs: int) -> torch.Tensor:
    """Weights of four bits with a scale and a minimum for every 32, in bf16."""
    groups = torch.randn(outputs, inputs // GROUP, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = (high - low) / 15
    return (((groups - low) / scale).round() * scale + low).view(outputs, inputs).bfloat16()


def test_only_weights_of_four_bits_are_packed_as_four_bits() -> None:
    torch.manual_seed(0)
    matrix = four_bit(128, 96)
    bits = FourBits.of(matrix)
    assert bits is not None
    eye = torch.eye(96, dtype=torch.bfloat16)
    unpacked = torch.cat([bits.product(None)(part) for part in eye.split(FEW)]).T
    assert float((unpacked.float() - matrix.float()).abs().max()) < 0.02
    moved = matrix.clone()
    moved[100, 50] += 0.1
    assert FourBits.of(moved) is None
    assert FourBits.of(torch.randn(128, 96).bfloat16()) is None
    assert FourBits.of(matrix[:, :80]) is None
    assert FourBits.of(torch.zeros(64, 32).bfloat16()) is not None


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("made", [four_bit, torch.randn])
def test_all_kernels_give_one_product(made: Any, steady: bool) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width, dtype=torch.bfloat16) for width in (64, 128)]
    for layer in layers:
        layer.weight.data = made(layer.out_features, 64).bfloat16()
    order = torch.randperm(192)
    whole = torch.cat([layer.weight for layer in layers]).detach().float()
    bias = torch.cat([layer.bias for layer in layers]).detach().float()
    product = Linear(layers, steady=steady, order=order)
    for rows in (1, 2, FEW, FEW + 1, 40):
        x = torch.randn(rows, 64).bfloat16()
        with torch.inference_mode():
            found, right = product(x).float(), (x.float() @ whole.T + bias)[:, order]
        assert float((found - right).abs().max()) < 0.03 * float(right.std()), rows
    assert torch.equal(torch.cat([layer.weight for layer in layers]).float(), whole)


def test_a_model_of_four_bits_is_served_by_its_four_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(model_weights, "SMALL", 0)  # as a model that is not so small
    base = make_model(tmp_path / "base", "llama")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    for layer in model.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = 0.3 * four_bit(*layer.weight.shape)
    model.save_pretrained(base)
    packed: list[FourBits | None] = []
    real = FourBits.of
    monkeypatch.setattr(FourBits, "of", lambda matrix: packed.append(real(matrix)) or packed[-1])
    engine = loaded(base, make_adapter(base, tmp_path / "adapter"), "bfloat16")
    assert engine.model_of("base").way == "fused"
    assert not engine.repeatable
    assert sum(one is not None for one in packed) >= 8
    assert len(replies(engine, base=1.0, aligned=1.0)) == 2


@pytest.mark.slow
def test_replies_by_our_layers_do_not_change_in_company() -> None:
    engine = make_engine("none")
    assert engine.model_of("base").way == "fused" and engine.repeatable
    found = count(engine, rounds_of(8, 16))
    assert found == dict.fromkeys(found, 0)


@pytest.mark.parametrize("tokens", [700, 4096, 49_152])
def test_the_best_tokens_are_found_in_blocks(tokens: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, tokens)
    rows[1] = rows[1].sort().values
    rows[2] = rows[2].round()
    found = rows.gather(1, best_of(rows, HEAD)).sort(descending=True).values
    assert torch.equal(found, rows.topk(HEAD).values)
