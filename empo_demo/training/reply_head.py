"""Scores the tokens of the replies only, where TRL scores every position.

TRL's trainers ask the model for log-probabilities instead of logits. On a GPU its kernel computes
them for the positions that have a label. On a CPU it computes them for all positions, and the
projection twice, in fp32: of a small model with a large vocabulary that is most of a step. This
module gives the model a head that computes the same figures for the labelled positions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_BYTES = 2**30
"""The most memory for logits in fp32. Beyond it TRL's head, which works in pieces, is used."""
_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
_PLAIN = (None, 1, 1.0)


def score_replies_only(model: Any) -> None:
    """Give `model`, a causal language model that a trainer of TRL has prepared, the faster head.

    It stays TRL's own on other devices, for models that scale or cap their logits, and for batches
    whose labelled positions need more than `MOST_BYTES`.
    """
    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) not in _PLAIN for name in _SCALES)
    capped = getattr(config, "final_logit_softcapping", None) is not None
    if scaled or capped or getattr(config, "output_router_logits", False):
        return
    model.forward = _forward(model, model.forward)


def _forward(model: Any, theirs: Callable[..., Any]) -> Callable[..., Any]:
    from trl.trainer.utils import FusedCausalLMOutput

    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or labels.device.type != "cpu":
            return theirs(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        head = model.get_output_embeddings()
        mask = labels[:, 1:] != -100
        if 4 * int(mask.sum()) * head.weight.shape[0] > MOST_BYTES:
            return theirs(*args, fused_lm_head=True, labels=labels, **kwargs)
        count = kwargs.pop("num_items_in_batch", None)
        hidden = model.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        figures = _figures(head(hidden[:, :-1][mask]).float(), labels[:, 1:][mask])
        # Positions without a label are 0, as in TRL's own output.
        full = {
            name: value.new_zeros(mask.shape).masked_scatter(mask, value)
            for name, value in figures.items()
        }
        divisor = mask.sum().clamp(min=1) if count is None else count
        loss = -full["log_probs"].sum() / divisor
        return FusedCausalLMOutput(loss=loss, **full, label_mask=mask, aux_loss=None)

    return forward


def _figures(logits: Any, targets: Any) -> dict[str, Any]:
    """TRL's figures of each token, from logits (tokens, vocabulary). Only the first is learnt."""
    import torch

    logs = logits.log_softmax(-1)
    log_probs = logs.gather(-1, targets[:, None])[:, 0]
    with torch.no_grad():
        probs = logs.exp()
        return {
            "log_probs": log_probs,
            "entropy": -(probs * logs).sum(-1),
            "log_sum_sq_probs": probs.square().sum(-1).log(),
            "mean_logits": logits.mean(-1),
            "is_top1": logits.argmax(-1) == targets,
        }
