"""The trial catches a fault of the kinds that people met: each is planted here, in each type.

A fault is planted after the reference was computed, where the copy is served. Without one, the same
copy must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from empo_demo.contenders.roster import Contender
from empo_demo.engine.assembly import trial
from empo_demo.engine.loader import Loader
from empo_demo.engine.lockstep import attention
from empo_demo.engine.weights import lora
from empo_demo.engine.weights.model_weights import Weights
from empo_demo.engine.weights.shapes import ModelShape
from tests.outside.made import TINY, make_adapter, make_model

pytestmark = pytest.mark.slow

MODES = {"fp32": ("float32", "none"), "bf16": ("bfloat16", "none"), "nf4": ("bfloat16", "nf4")}
ADAPTER = TINY.parent / "aligned"
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict on a faulty copy must not be found for the sound model of the same content."""
    root = "empo_demo.engine.assembly.copies._root"
    monkeypatch.setattr(root, lambda: tmp_path / "verdicts")


def tried(
    base: Path,
    mode: str,
    patch: Patch,
    *,
    adapter: Path | None = None,
    plant: Callable[[Weights], None] = lambda _: None,
) -> dict[str, str | None]:
    """What the trials find of a copy in which `plant` changed something."""
    found: dict[str, str | None] = {}
    real = trial.judge

    def judge(weights: Weights, reference: trial.Reference) -> dict[str, str | None]:
        plant(weights)
        for name, problem in real(weights, reference).items():
            found[name] = found.get(name) or problem
        return dict.fromkeys(reference.expected)

    loader = Loader("cpu", MODES[mode][1], "shared" if adapter else "auto", True)  # type: ignore[arg-type]
    loader.dtype = MODES[mode][0]
    contenders = [Contender("base", str(base))]
    if adapter is not None:
        contenders.append(Contender("aligned", str(base), str(adapter)))
    with patch.context() as only_here:
        only_here.setattr(trial, "judge", judge)
        only_here.setattr("empo_demo.engine.assembly.copies.Tried.find", lambda _: None)
        loader.load(contenders)
    return found


def sees_one_ahead(patch: Patch) -> None:
    real = attention._bias

    def bias(outside: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return real(torch.cat([torch.zeros_like(outside[..., :1]), outside[..., :-1]], -1), dtype)

    patch.setattr(attention, "_bias", bias)


def forgets_the_first(patch: Patch) -> None:
    real = attention._bias

    def bias(outside: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        first = torch.zeros_like(outside)
        first[..., 0] = True
        return real(outside | first, dtype)

    patch.setattr(attention, "_bias", bias)


def scaled(patch: Patch, factor: float) -> None:
    real = lora.install

    def install(wrapped: Any) -> Any:
        for module in wrapped.modules():
            if hasattr(module, "lora_A") and hasattr(module, "scaling"):
                module.scaling = {name: value * factor for name, value in module.scaling.items()}
        return real(wrapped)

    patch.setattr(lora, "install", install)


def on_another_layer(patch: Patch) -> None:
    real = lora.install

    def install(wrapped: Any) -> Any:
        layers = [m for n, m in wrapped.named_modules() if n.endswith(".q_proj")]
        first, second = (layer.lora_B["a0"].weight for layer in layers[:2])
        kept = first.data.clone()
        first.data, second.data = second.data.clone(), kept
        return real(wrapped)

    patch.setattr(lora, "install", install)


def turns(factor: float) -> Callable[[Weights], None]:
    """A wrong factor of the rotary positions."""

    def plant(weights: Weights) -> None:
        for name, buffer in weights.model.named_buffers():
            if name.endswith("inv_freq"):
                buffer.mul_(factor)

    return plant


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose attention is so flat that bf16 hides its rotary positions."""
    folder = tmp_path_factory.mktemp("flat") / "llama"
    return make_model(folder, "llama", initializer_range=0.02)


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_copy_without_a_fault_passes(mode: str, monkeypatch: Patch, flat: Path) -> None:
    assert not any(tried(TINY, mode, monkeypatch, adapter=ADAPTER).values())
    assert not any(tried(flat, mode, monkeypatch).values())


@pytest.mark.parametrize("mask", [sees_one_ahead, forgets_the_first])
def test_a_wrong_mask_is_caught(
    mask: Callable[[Patch], None], mode: str, monkeypatch: Patch
) -> None:
    mask(monkeypatch)
    assert tried(TINY, mode, monkeypatch)[""]


@pytest.mark.parametrize("factor", [2.0, 1.1])
def test_a_wrong_rotary_factor_is_caught(
    factor: float, mode: str, monkeypatch: Patch, flat: Path
) -> None:
    for base in (TINY, flat):
        assert tried(base, mode, monkeypatch, plant=turns(factor))[""], base


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "olmo2"])
def test_in_a_large_model_a_small_fault_is_caught_in_fp32(
    kind: str, monkeypatch: Patch, tmp_path: Path
) -> None:
    """Of a large model only the first layers are tried in fp32; bf16 hides the factor."""
    more = (
        {"layer_types": ["sliding_attention"] * 3 + ["full_attention"] * 3} if "3" in kind else {}
    )
    base = make_model(tmp_path / kind, kind, num_hidden_layers=6, initializer_range=0.02, **more)
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    monkeypatch.setattr(trial, "_WHOLE", 0)
    monkeypatch.setattr(ModelShape, "held", lambda *_: float("inf"))
    depths = []
    real = trial.reference_of

    def reference_of(model: Any, tokenizer: Any) -> trial.Reference:
        depths.append(len(model.model.layers))
        return real(model, tokenizer)

    monkeypatch.setattr(trial, "reference_of", reference_of)
    assert not any(tried(base, "bf16", monkeypatch, adapter=adapter).values())
    assert depths == [4 if more else 2, 6]
    assert tried(base, "bf16", monkeypatch, adapter=adapter, plant=turns(1.1))[""]
    scaled(monkeypatch, 1.02)
    assert tried(base, "bf16", monkeypatch, adapter=adapter)["a0"]


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_scale_of_an_adapter_is_caught(
    factor: float, mode: str, monkeypatch: Patch
) -> None:
    scaled(monkeypatch, factor)
    found = tried(TINY, mode, monkeypatch, adapter=ADAPTER)
    assert found["a0"] and not found[""]


def test_an_adapter_on_another_layer_is_caught(mode: str, monkeypatch: Patch) -> None:
    on_another_layer(monkeypatch)
    found = tried(TINY, mode, monkeypatch, adapter=ADAPTER)
    assert found["a0"] and not found[""]


def test_a_lost_soft_cap_is_caught(mode: str, monkeypatch: Patch, tmp_path: Path) -> None:
    real = attention._attention

    def uncapped(*inputs: Any, softcap: float | None = None, **options: Any) -> Any:
        return real(*inputs, **options)

    monkeypatch.setattr(attention, "_attention", uncapped)
    found = tried(make_model(tmp_path / "g2", "gemma2"), mode, monkeypatch)
    assert "logits differ" in str(found[""])


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_window_that_is_ignored_is_caught(
    kind: str, mode: str, monkeypatch: Patch, tmp_path: Path
) -> None:
    """The context ends at the window, so that it does not matter: here it goes beyond it."""
    base = make_model(tmp_path / kind, kind, sliding_window=16)
    monkeypatch.setattr(trial, "context_of", lambda _: 512)
    assert "logits differ" in str(tried(base, mode, monkeypatch)[""])
