"""The models of the benchmark for the first GPU: random weights of any size, made in place."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

from empo_demo.settings import ASSETS

TOKENIZER = str(ASSETS / "tiny" / "base")
SAID = (
    {"role": "user", "content": "I failed my driving test for the third time today."},
    {"role": "assistant", "content": "Oh no, that is hard. What happened?"},
    {"role": "user", "content": "I was so nervous that I stalled the car, with my dad watching."},
)


def build(device: Any, width: int, layers: int, dtype: Any, *, nf4: bool = False) -> Any:
    """A Llama of random weights, quantised layer by layer as it is made."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(1, width // 128) if width >= 128 else 2
    config = LlamaConfig(
        vocab_size=max(len(AutoTokenizer.from_pretrained(TOKENIZER)), 32000 if nf4 else 0),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=round(width * 2.6875 / 64) * 64,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    if not nf4:
        return LlamaForCausalLM(config).to(device, dtype).eval()
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _quantised(module, device, dtype))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, last = name.rpartition(".")
            values = torch.ones if parameter.dim() == 1 else torch.randn
            made = values(parameter.shape, dtype=dtype, device=device)
            made *= 1.0 if parameter.dim() == 1 else 0.02
            setattr(model.get_submodule(parent), last, torch.nn.Parameter(made, False))
    rotary = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config=config).to(device)
    model.tie_weights()
    return model.eval()


def _quantised(plain: Any, device: Any, dtype: Any) -> Any:
    """As the loader quantises: the scales of NF4 are not quantised once more."""
    import bitsandbytes as bnb
    import torch

    layer = bnb.nn.Linear4bit(
        plain.in_features,
        plain.out_features,
        bias=False,
        compute_dtype=dtype,
        quant_type="nf4",
        compress_statistics=False,
        device="meta",
    )
    values = torch.randn(plain.out_features, plain.in_features, device=device) * 0.02
    layer.weight = bnb.nn.Params4bit(
        values.to(dtype).cpu(), requires_grad=False, quant_type="nf4", compress_statistics=False
    )
    return layer.to(device)


def bare(model: Any) -> Any:
    """`model` without what an engine has put into and around its layers."""
    for module in model.modules():
        # Layers that were packed for a CPU pass no gradients back.
        module.__dict__.pop("forward", None)
        module.__dict__.pop("_empo_packed", None)
        for name, child in list(module.named_children()):
            if hasattr(child, "base_layer"):
                setattr(module, name, child.base_layer)
    # An adapter's layers hold themselves alive; r = 1,024 takes as much memory as the model.
    gc.collect()
    return model


def engine_of(model: Any, *, adapters: bool, rank: int = 16) -> Any:
    """An engine of `base`, with a random adapter also of `aligned`."""
    from peft import LoraConfig, PeftModel, get_peft_model

    from empo_demo.engine.lockstep.local import LocalEngine
    from empo_demo.engine.weights.adapters import release
    from empo_demo.engine.weights.lora import install

    if not adapters:
        return LocalEngine([weights(model, {"base": None}, None)], {}, max_rounds=16)
    import torch

    plain = bare(model)
    # Made on the meta device: PEFT would draw r = 1,024 in fp32 on the host.
    wrapped: PeftModel = get_peft_model(
        plain,
        LoraConfig(r=rank, lora_alpha=16, target_modules="all-linear"),
        "a0",
        autocast_adapter_dtype=False,
        low_cpu_mem_usage=True,
    )
    like = plain.get_input_embeddings().weight
    for name, parameter in list(wrapped.named_parameters()):
        if "lora_" in name:
            values = torch.randn(parameter.shape, device=like.device, dtype=like.dtype) * 0.01
            parent, _, last = name.rpartition(".")
            setattr(wrapped.get_submodule(parent), last, torch.nn.Parameter(values, False))
    rows = install(wrapped)
    release(wrapped)
    return LocalEngine([weights(plain, {"base": None, "aligned": "a0"}, rows)], {}, max_rounds=16)


def weights(model: Any, served: dict[str, str | None], rows: Any) -> Any:
    """The copy of weights for an engine; no token ends a reply."""
    from empo_demo.engine.text.chat_template import load_tokenizer
    from empo_demo.engine.weights.model_weights import weights_of

    model.name_or_path = TOKENIZER
    made = weights_of(model, load_tokenizer(TOKENIZER), served, rows)
    return replace(made, ends=frozenset(), stops=(), trained=made.context)


def bytes_read(model: Any) -> float:
    """Bytes that a decode step reads: all weights but the embedding's."""
    seen = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    for parameter in model.parameters():
        # NF4's scales are no parameters of their own.
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            seen[state.absmax.data_ptr()] = state.absmax.numel() * state.absmax.element_size()
    table = model.get_input_embeddings().weight
    return float(sum(seen.values()) - table.numel() * table.element_size())
