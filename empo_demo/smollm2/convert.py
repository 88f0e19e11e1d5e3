"""Makes a safetensors folder of a GGUF file of a Llama: weights in bf16, tokenizer, configuration.

The values are those that transformers' own GGUF reader gives; it takes four times as long, and
needs the whole model in fp32.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from empo_demo.errors import first_line

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader

_SPECIAL = 3
"""GGUF's token type of control tokens."""
_MODULES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf: Path, out: Path, model: str, report: Callable[[int, int], None]) -> None:
    """Write the model of the file `gguf` to the folder `out`, under the name `model`.

    `report` gets (tensors done, tensors). Raises `ValueError` if the file holds another kind of
    model, and `OSError` if the disk is full.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    out.mkdir(parents=True, exist_ok=True)
    fields = _Fields(reader)
    _write_json(out / "config.json", _config(fields, model))
    _write_json(out / "tokenizer.json", _tokenizer(fields))
    _write_json(out / "tokenizer_config.json", _tokenizer_config(fields))
    template = fields["tokenizer.chat_template"]
    (out / "chat_template.jinja").write_text(template, encoding="utf8")
    _write_weights(reader, fields, out / "model.safetensors", report)


class _Fields:
    """The metadata of a GGUF file, by name."""

    def __init__(self, reader: GGUFReader) -> None:
        self._reader = reader

    def __getitem__(self, name: str) -> Any:
        field = self._reader.get_field(name)
        if field is None:
            raise ValueError(f"it has no {name}")
        return field.contents()

    def token(self, role: str) -> str:
        """The token that the file uses as `role`: "bos", "eos", "unknown" or "padding"."""
        number = self[f"tokenizer.ggml.{role}_token_id"]
        return str(self["tokenizer.ggml.tokens"][number])


def _write_weights(
    reader: GGUFReader, fields: _Fields, file: Path, report: Callable[[int, int], None]
) -> None:
    import torch
    from gguf import dequantize
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    weights: dict[str, torch.Tensor] = {}
    for done, tensor in enumerate(reader.tensors):
        report(done, len(reader.tensors))
        name, kind = _module(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type)
        if kind in heads:
            values = _halves(values, heads[kind])
        weights[name] = torch.from_numpy(np.require(values, requirements="W")).to(torch.bfloat16)
    try:
        save_file(weights, file, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library does not say with which error of the system the file could not be written.
        full = "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, first_line(error), str(file)) from None


def _module(name: str) -> tuple[str, str]:
    """(name in transformers, kind of tensor) of a GGUF tensor like `blk.3.attn_q.weight`."""
    parts = name.split(".")
    kind = parts[-2] if len(parts) > 1 else name
    if kind not in _MODULES or parts[-1] != "weight":
        raise ValueError(f"it holds the tensor {name}, which no Llama with tied embeddings has")
    layer = f"layers.{int(parts[1])}." if parts[0] == "blk" else ""
    return f"model.{layer}{_MODULES[kind]}.weight", kind


def _halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The rows of Q or K, (heads · size, hidden), in the order of transformers.

    GGUF keeps the two numbers that RoPE turns side by side; transformers keeps them in the two
    halves of a head.
    """
    size = weight.shape[0] // heads
    pairs = weight.reshape(heads, size // 2, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _config(fields: _Fields, model: str) -> dict[str, Any]:
    if fields["general.architecture"] != "llama":
        raise ValueError("it holds no Llama")
    heads, hidden = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return {
        "_name_or_path": model,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": hidden // heads,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {
            "rope_theta": fields["llama.rope.freq_base"],
            "rope_type": "default",
        },
        "tie_word_embeddings": True,
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer(fields: _Fields) -> dict[str, Any]:
    """The file of the library tokenizers: byte-level BPE."""
    if fields["tokenizer.ggml.model"] != "gpt2":
        raise ValueError("its tokenizer is not a byte-level BPE")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **flags, "special": True}
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {**level, "add_prefix_space": False},
        "post_processor": None,
        "decoder": {**level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(fields: _Fields) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": fields.token("bos"),
        "eos_token": fields.token("eos"),
        "pad_token": fields.token("padding"),
        "unk_token": fields.token("unknown"),
        "model_max_length": fields["llama.context_length"],
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf8")
