"""Models of other families answer as `generate()` has them, alone and in a mixed batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.engine.text.chat_template import encode_chat, load_tokenizer
from empo_demo.engine.weights.model_weights import weights_of

SHORT = ({"role": "user", "content": "We are getting a puppy!"},)
LONG = (
    {"role": "user", "content": "I failed my driving test again, in front of my father."},
    {"role": "assistant", "content": "Oh no."},
    *SHORT,
)


def random_model(kind: str, tokenizer: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(3)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    if kind == "Mistral":
        shape["sliding_window"] = 160
    if kind == "Gemma3Text":
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        shape |= {"sliding_window": 160, "layer_types": kinds}
    config = getattr(transformers, f"{kind}Config")(**shape)
    return getattr(transformers, kind.removesuffix("Text") + "ForCausalLM")(config).eval()


@pytest.mark.parametrize("kind", ["Mistral", "Qwen2", "Qwen3", "Gemma3Text", "Phi3"])
def test_a_family_decodes_in_a_mixed_batch_as_alone(kind: str, tiny_folder: Path) -> None:
    import torch
    import transformers

    if kind == "Gemma3Text" and not hasattr(transformers, "Gemma3ForCausalLM"):
        pytest.skip("this transformers has no Gemma 3")
    tokenizer = load_tokenizer(str(tiny_folder))
    model = random_model(kind, tokenizer)
    weights = weights_of(model, tokenizer, {"base": None}, None)
    engine = LocalEngine([weights], {})
    decoding = Decoding(0, 1, 1.0, 16)
    expected = {}
    for side, messages in (("a", SHORT), ("b", LONG)):
        prompt = torch.tensor([encode_chat(tokenizer, messages)])
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=sorted(weights.ends),
            pad_token_id=0,
        )
        text = tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
        expected[side] = str(text).rstrip("\ufffd").strip()
    events = engine.stream(
        [Request("a", "base", SHORT, decoding), Request("b", "base", LONG, decoding)]
    )
    found = {event.side: event.text.strip() for event in events if isinstance(event, Finished)}
    assert found == expected
