"""The conversion gives what transformers' own reader of GGUF files gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from empo_demo.smollm2.convert import convert
from empo_demo.smollm2.package import Package
from tests.package_index import write_gguf

TEXTS = ["the cat", "I lost\nmy keys, 1234 times!", "<|im_start|>user\nthe<|im_end|>\n", "naïve 😀"]


def same(gguf: Path, folder: Path) -> None:
    """The tensors, the tokens and the messages of both readers are equal."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs: dict[str, Any] = {"gguf_file": gguf.name}
    expected = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **theirs)
    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    wanted = expected.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    for name in ("hidden_size", "num_key_value_heads", "eos_token_id", "max_position_embeddings"):
        assert getattr(found.config, name) == getattr(expected.config, name), name
    assert found.config.rope_parameters == expected.config.rope_parameters
    one, other = (
        AutoTokenizer.from_pretrained(folder),
        AutoTokenizer.from_pretrained(gguf.parent, **theirs),
    )
    for text in TEXTS:
        assert one(text)["input_ids"] == other(text)["input_ids"], text
        assert one.decode(one(text)["input_ids"]) == other.decode(other(text)["input_ids"])
    said = [{"role": "user", "content": "the cat"}]
    assert one.apply_chat_template(said, tokenize=False) == other.apply_chat_template(
        said, tokenize=False
    )
    assert (one.bos_token, one.eos_token) == (other.bos_token, other.eos_token)


def test_tensors_and_tokens_are_those_of_transformers_own_reader(
    made: tuple[Path, Package],
) -> None:
    folder, package = made
    same(folder / "source.gguf", folder / package.model)


@pytest.mark.slow
def test_the_conversion_needs_no_transformers(made: tuple[Path, Package], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from empo_demo.smollm2.convert import convert; "
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), 'm', lambda done, total: None); "
        "assert 'transformers' not in sys.modules"
    )
    source = str(made[0] / "source.gguf")
    subprocess.run([sys.executable, "-c", code, source, str(tmp_path / "m")], check=True)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", architecture="gemma")
    with pytest.raises(ValueError, match=r"it has no|it holds no Llama"):
        convert(tmp_path / "other.gguf", tmp_path / "out", "m", lambda done, total: None)
