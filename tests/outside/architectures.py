"""A tiny configuration of every architecture that AutoModelForCausalLM opens."""

from __future__ import annotations

from typing import Any

_SIZES: dict[str, Any] = {
    # What each maker calls the same thing.
    # Some makers' tokenizers add tokens to the 8,192 of the tiny base.
    **dict.fromkeys(("vocab_size", "text_vocab_size"), 8256),
    **dict.fromkeys(
        (
            "hidden_size",
            "d_model",
            "n_embd",
            "dim_model",
            "embedding_size",
            "emb_dim",
            "d_embed",
            "decoder_hidden_size",
            "lru_width",
            "input_embedding_size",
            "dim",
            "width",
        ),
        64,
    ),
    **dict.fromkeys(
        (
            "intermediate_size",
            "ffn_dim",
            "d_ff",
            "d_inner",
            "n_inner",
            "dim_ff",
            "decoder_ffn_dim",
            "encoder_ffn_dim",
            "ffn_hidden_size",
            "moe_intermediate_size",
            "feed_forward_size",
            "shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "intermediate_size_mlp",
            "shared_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "mlp_hidden_size",
        ),
        128,
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers",
            "n_layer",
            "num_layers",
            "decoder_layers",
            "n_layers",
            "encoder_layers",
            "num_decoder_layers",
            "num_encoder_layers",
            "num_blocks",
        ),
        2,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "decoder_attention_heads",
            "num_heads",
            "encoder_attention_heads",
            "num_decoder_attention_heads",
            "num_encoder_attention_heads",
        ),
        4,
    ),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(
        (
            "head_dim",
            "v_head_dim",
            "global_head_dim",
            "swa_head_dim",
            "attention_head_dim",
            "dim_head",
            "qk_nope_head_dim",
        ),
        16,
    ),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "time_step_rank"), 16),
    "qk_rope_head_dim": 16,
    "qk_head_dim": 32,
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
        4,
    ),
    **dict.fromkeys(
        ("num_experts_per_tok", "moe_topk", "top_k", "moe_k", "num_selected_experts"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(
        (
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_seq_len",
            "context_length",
            "max_sequence_length",
        ),
        512,
    ),
    **dict.fromkeys(("sliding_window", "attention_window_size"), 128),
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id"), 1),
    "pad_token_id": 0,
    "eos_token_id": 1,
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
    "tie_word_embeddings": False,
    "use_cache": True,
    "is_decoder": True,
    **dict.fromkeys(("rotary_dim", "rotary_ndims"), 8),
}
_GEMMA: dict[str, Any] = {
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 8256,
}
_DOTS: dict[str, Any] = {"num_key_value_heads": 4, "per_layer_config": {}}
OWN: dict[str, dict[str, Any]] = {
    "dots3_note": _DOTS,
    "dots3_note_text": _DOTS,
    "gemma3n": _GEMMA,
    "gemma3n_text": _GEMMA,
    "gemma4": _GEMMA,
    "gemma4_text": _GEMMA,
    "gemma4_assistant": _GEMMA,
    "gemma4_unified_assistant": _GEMMA,
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": ["global", "local"],
    },
    "mamba2": {"head_dim": 32},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"]},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "mamba", "hybrid"],
        "layer_types": ["mamba", "mamba", "hybrid"],
    },
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "layer_types": ["mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
    "blt": {"encoder_hash_byte_group_vocab": 500, "encoder_hash_byte_group_size": [3]},
}
"""What an architecture needs beside."""
MOST = 60_000_000
"""The most weights of a tiny model."""


def kinds() -> list[str]:
    """All architectures of AutoModelForCausalLM, in alphabetical order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return sorted(NAMES)


def tiny_config(kind: str) -> Any:
    """The configuration of a random model of about two layers.

    Raises what its class raises, and `ValueError` if the model would be larger than `MOST`.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = _shrunk(CONFIG_MAPPING[kind], OWN.get(kind, {}))
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > MOST:
        raise ValueError(f"the model has {size} weights")
    return config


def _shrunk(made: Any, own: dict[str, Any]) -> Any:
    default = made()
    parts = {
        name: _shrunk(type(part), own)
        for name in getattr(made, "sub_configs", {})
        if hasattr(part := getattr(default, name, None), "to_dict")
    }
    known = {**default.to_dict(), **getattr(made, "attribute_map", {})}
    sizes = {
        name: value
        for name, value in _SIZES.items()
        if name in known and not (known[name] is None and name in ("sliding_window",))
    }
    if "kv_lora_rank" in known:
        # Its keys are made anew for each head.
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    mine = {name: value for name, value in own.items() if name in known}
    return made(**{**sizes, **parts, **mine})
