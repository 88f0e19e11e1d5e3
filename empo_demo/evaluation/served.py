"""One contender's model as a plain transformers module, with the weights that the arena serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from empo_demo.contenders import Contender, Roster
from empo_demo.errors import EngineError
from empo_demo.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """A causal language model, quantised, adapter applied, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_served(settings: Settings, roster: Roster, contender: Contender) -> Served:
    """Load base weights in the roster's quantisation and apply the contender's adapter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = _device(settings.device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(contender.adapter or contender.base)
    except (OSError, ValueError):
        tokenizer = AutoTokenizer.from_pretrained(contender.base)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        model = AutoModelForCausalLM.from_pretrained(
            contender.base,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_quantisation(roster.quantization, dtype),
        )
        if contender.adapter is not None:
            model = _adapted(model, contender.adapter, len(tokenizer))
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"The contender {contender.id!r} cannot be loaded: {reason}") from None
    model.eval()  # type: ignore[no-untyped-call,unused-ignore]
    return Served(model, tokenizer)


def _adapted(model: Any, adapter: str, vocabulary: int) -> Any:
    from peft import PeftModel

    # An adapter that adds tokens holds larger embeddings; they must exist before it is loaded.
    if vocabulary > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(vocabulary)
    return PeftModel.from_pretrained(model, adapter)


def _quantisation(kind: str, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    if kind == "nf4":
        return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return config(load_in_8bit=True) if kind == "int8" else None


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
