"""Attention in fp32 for 16-bit models on a CPU, where it is three times as fast as in bf16.

Measured at a hundred positions, one thread: 97 µs a layer for a pair in bf16, 28 µs in fp32 with
the casts. Registered with transformers under a name of its own; other devices keep theirs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
NAME = "sdpa_fp32"


def speed_up(model: PreTrainedModel) -> None:
    """Give a 16-bit model on a CPU this attention, if it computes attention by `sdpa` at all."""
    slow = model.device.type == "cpu" and model.get_input_embeddings().weight.dtype in (
        torch.bfloat16,
        torch.float16,
    )
    if not slow or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, AttributeError, TypeError) as error:
        log.info("Attention stays in 16 bits: %s", error)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    out, weights = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **options
    )
    return out.to(query.dtype), weights
