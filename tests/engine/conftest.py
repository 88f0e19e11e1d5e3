"""A tiny random Llama with a real tokenizer and two random adapters: fast, and in fp32 exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from empo_demo.contenders.roster import Contender
from empo_demo.engine.loader import Loader
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.weights.adapters import attach
from empo_demo.engine.weights.lora import install
from empo_demo.engine.weights.model_weights import weights_of

TEXTS = (
    "I failed my driving test again, in front of my father.",
    "We are getting a puppy on Saturday, and I cannot sleep for joy!",
    "Nobody came to my party. — Niemand kam. 誰も来なかった 😢",
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights and a byte-level tokenizer of 400 pieces."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from recipes.tiny.start_model import SPECIAL, TEMPLATE

    folder = tmp_path_factory.mktemp("tiny")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="</s>",
        extra_special_tokens=list(SPECIAL[2:]),
        padding_side="left",
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=256,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA over all seven projections, strong enough to change every reply."""
    return make_adapter(tiny_folder, tmp_path_factory.mktemp("adapter"), seed=1)


def make_adapter(base: Path, folder: Path, *, seed: int, **options: object) -> Path:
    """Save a random LoRA for `base` into `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options)  # type: ignore[arg-type]
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def roster(tiny_folder: Path, adapter_folder: Path) -> tuple[Contender, ...]:
    return (
        Contender("base", str(tiny_folder)),
        Contender("aligned", str(tiny_folder), str(adapter_folder)),
    )


@pytest.fixture(scope="session")
def exact_engine(tiny_folder: Path, adapter_folder: Path) -> LocalEngine:
    """The engine in fp32, where it must equal `generate()` token for token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    rows = install(attach(model, {"a0": adapter_folder}))
    tokenizer = load_tokenizer(str(tiny_folder))
    weights = weights_of(model, tokenizer, {"base": None, "aligned": "a0"}, rows)
    return LocalEngine([weights], {})


@pytest.fixture(scope="session")
def quantised_engine(roster: tuple[Contender, ...]) -> LocalEngine:
    loader = Loader("cpu", "nf4")
    return LocalEngine(loader.load(roster), loader.notes)
