"""Small random models and adapters of all kinds, and what transformers and PEFT make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from empo_demo.contenders.roster import Contender
from empo_demo.engine.loader import Loader
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.engine.text.chat_template import encode_chat

TINY = Path(__file__).resolve().parents[2] / "assets" / "tiny" / "base"
TEXT = "I lost my keys again and I feel so silly about it."
TOKENS = 12
OWN: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 128,
        "attn_logit_softcapping": 50.0,
        "initializer_range": 0.6,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 128},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "sliding_window": 32},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 128,
    },
    "stablelm": {"partial_rotary_factor": 0.5},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "phi3": {
        "original_max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [8.0] * 8,
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 128,
        },
    },
}
"""What a configuration of an architecture needs beside the common shape."""


def make_model(folder: Path, kind: str, *, config: Any = None, **more: Any) -> Path:
    """A random model of two layers with the tokenizer of the tiny base, or one as in `config`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    shape = {
        "vocab_size": 8192,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    if config is None:
        config = AutoConfig.for_model(kind, **{**shape, **OWN.get(kind, {}), **more})
    AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, *, config: Any = None, **options: Any) -> Path:
    """A random adapter of `base`: a LoRA with `options`, or what `config` describes.

    What PEFT makes out of the base itself (PiSSA) stays as it was made.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if config is None:
        targets: Any = "all-linear"
        if "layers_to_transform" in options:
            # PEFT takes a choice of layers only with names.
            targets = _linear_names(model)
        options = {"r": 4, "lora_alpha": 8, "target_modules": targets, **options}
        config = LoraConfig(task_type="CAUSAL_LM", **options)
    wrapped = get_peft_model(model, config)
    if getattr(config, "init_lora_weights", True) is True:
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(str(folder))
    return folder


def _linear_names(model: Any) -> list[str]:
    """The last names of the linear layers in the model's layers."""
    kinds = ("Linear", "Conv1D")
    return sorted(
        {
            path.rpartition(".")[2]
            for path, module in model.named_modules()
            if type(module).__name__ in kinds and any(name.isdigit() for name in path.split("."))
        }
    )


def engine_of(
    base: Path,
    adapter: Path | None = None,
    *,
    quantization: Any = "none",
    dtype: str = "float32",
    plan: Any = "auto",
) -> LocalEngine:
    """The engine of the contenders `base` and, with an adapter, `aligned`."""
    loader = Loader("cpu", quantization, plan)
    loader.dtype = dtype
    contenders = [Contender("base", str(base))]
    if adapter is not None:
        contenders.append(Contender("aligned", str(base), str(adapter)))
    return LocalEngine(loader.load(contenders), loader.notes, max_rounds=2)


def served(
    base: Path,
    adapter: Path | None = None,
    *,
    quantization: Any = "none",
    dtype: str = "float32",
    texts: Sequence[str] = (TEXT,),
    plan: Any = "auto",
) -> tuple[list[str], dict[str, str]]:
    """The greedy replies to `texts` in one call of the engine, and the loader's notes."""
    engine = engine_of(base, adapter, quantization=quantization, dtype=dtype, plan=plan)
    decoding = Decoding(0.0, 1.0, 1.0, TOKENS)
    contender = "base" if adapter is None else "aligned"
    asked = [
        Request(str(i), contender, ({"role": "user", "content": text},), decoding)
        for i, text in enumerate(texts)
    ]
    found = {}
    for event in engine.stream(asked):
        assert not isinstance(event, Failed), event.error
        if isinstance(event, Finished):
            found[event.side] = event.text.strip()
    return [found[str(i)] for i in range(len(texts))], engine.describe()


def own(base: Path, adapter: Path | None = None, *, text: str = TEXT, anew: bool = False) -> str:
    """The greedy reply in fp32 by transformers' `generate`, with PEFT's adapter.

    `anew` computes all tokens anew for each one: the cache of some models is broken.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = torch.tensor([encode_chat(tokenizer, [{"role": "user", "content": text}])])
    ends = sorted({1, *tokenizer.all_special_ids})
    if anew:
        out = ids
        for _ in range(TOKENS):
            with torch.inference_mode():
                last = model.eval()(input_ids=out, use_cache=False).logits[:, -1:].argmax(-1)
            out = torch.cat([out, last], dim=1)
            if int(last) in ends:
                break
    else:
        out = model.eval().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=0,
        )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()
