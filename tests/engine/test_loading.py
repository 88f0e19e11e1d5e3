"""What the loader chooses, and what it says when a model cannot be used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.loader import Loader
from empo_demo.engine.loading import load_engine
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.engine.weights.adapter_plan import AdapterShape, choose, read_shape
from empo_demo.errors import EngineError
from empo_demo.settings import Settings
from tests.outside.made import TINY

GREEDY = Decoding(0, 1, 1.0, 16)
SAD = ({"role": "user", "content": "I failed my driving test again."},)


def make_adapter(
    base: Path, folder: Path, *, vocabulary: int | None = None, **options: Any
) -> Path:
    """Save a random LoRA for `base`; with `vocabulary` first resized, embeddings and head whole."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if vocabulary is not None:
        model.resize_token_embeddings(vocabulary)
        options["modules_to_save"] = ["embed_tokens", "lm_head"]
    projections = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": projections, **options})
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3 if "lora_" in name else 0.2)
    wrapped.save_pretrained(str(folder))
    return folder


def replies(engine: Any, *contenders: str, **options: Any) -> dict[str, str]:
    requests = [Request(c, c, SAD, GREEDY, **options) for c in contenders]
    return {e.side: e.text for e in engine.stream(requests) if isinstance(e, Finished)}


def engine_of(
    base: Path, adapter: Path, plan: Any = "auto", bits: Any = "none", force: bool = False
) -> LocalEngine:
    loader = Loader("cpu", bits, plan, force)
    copies = loader.load(
        (Contender("base", str(base)), Contender("aligned", str(base), str(adapter)))
    )
    return LocalEngine(copies, loader.notes)


@pytest.mark.slow
def test_nf4_of_a_small_model_says_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from empo_demo.engine import loader as module

    loader, name = Loader("cpu", "nf4"), f"nf4 of {TINY.name}"
    (weights,) = loader.load((Contender("base", str(TINY)),))
    assert name not in loader.notes  # on a CPU, the pair's own settings say what it is held in
    loader._note_cost(str(TINY), weights)
    before, after = map(float, re.findall(r"(\d+\.\d)(?= to| *;)", loader.notes[name])[-2:])
    assert 20 < before < 100 and 0.9 < after / before < 1.1  # this pair was made for NF4
    assert "saves" in loader.notes[name] and "EMPO_QUANTIZATION=none" in loader.notes[name]
    monkeypatch.setattr(module, "_SMALL", 1000)
    del loader.notes[name]
    loader._note_cost(str(TINY), weights)
    assert name not in loader.notes


def test_a_published_empo_adapter_is_merged_into_its_own_copy(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Rank above the width, whole embeddings and head, one token more: as EmPO's are."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from empo_demo.engine.text.chat_template import encode_chat

    size = json.loads((tiny_folder / "config.json").read_text())["vocab_size"]
    adapter = make_adapter(tiny_folder, tmp_path / "dpo", vocabulary=size + 1, r=96)
    assert len(replies(engine_of(tiny_folder, adapter, bits="nf4"), "base", "aligned")) == 2
    engine = engine_of(tiny_folder, adapter)
    assert engine.describe()["adapter aligned"].startswith("merged")
    pair = replies(engine, "base", "aligned")
    assert set(pair) == {"base", "aligned"} and pair["base"] != pair["aligned"]
    served = engine.model_of("aligned")
    assert served.like.shape[0] == size + 1 and engine.model_of("base").like.shape[0] == size
    # The copy holds what PEFT computes.
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    reference.resize_token_embeddings(size + 1)
    reference = PeftModel.from_pretrained(reference, str(adapter)).eval()
    ids = torch.tensor([encode_chat(served.tokenizer, SAD)])
    with torch.inference_mode():
        expected, found = reference(ids).logits, served.model(ids).logits.float()
    assert torch.nn.functional.cosine_similarity(expected[0], found[0]).mean() > 0.98


def test_a_shared_and_a_merged_adapter_say_the_same(
    tiny_folder: Path, adapter_folder: Path
) -> None:
    shared = engine_of(tiny_folder, adapter_folder, "shared")
    merged = engine_of(tiny_folder, adapter_folder, "merged")
    assert shared.model_of("base") is shared.model_of("aligned")
    assert merged.model_of("base") is not merged.model_of("aligned")
    a, b = (replies(e, "base", "aligned") for e in (shared, merged))
    assert a["base"] == b["base"] and a["aligned"][:3] == b["aligned"][:3] != a["base"][:3]


def test_the_dial_of_a_merged_adapter_is_refused_in_words(
    tiny_folder: Path, adapter_folder: Path
) -> None:
    engine = engine_of(tiny_folder, adapter_folder, "merged")
    request = Request("a", "aligned", SAD, GREEDY, adapter_scale=0.5)
    (event,) = engine.stream([request])
    assert isinstance(event, Failed) and "dial" in event.error


def test_an_aligned_contender_may_be_a_whole_model(tiny_folder: Path, tmp_path: Path) -> None:
    """EMPO_ALIGNED may name either, and both ways of listing it work."""
    other = tmp_path / "whole"
    shutil.copytree(tiny_folder, other)
    engine = load_engine(
        Settings(device="cpu"),
        Roster(
            "r",
            (
                Contender("base", str(tiny_folder)),
                Contender("own", str(other)),
                Contender("aligned", str(tiny_folder), str(other)),
            ),
            quantization="none",
        ),
    )
    pair = replies(engine, "base", "own", "aligned")
    assert pair["base"] == pair["own"] == pair["aligned"] != ""


def test_several_adapters_share_one_copy(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    second = make_adapter(tiny_folder, tmp_path / "sft", r=8)
    loader = Loader("cpu", "none")
    copies = loader.load(
        (
            Contender("base", str(tiny_folder)),
            Contender("aligned", str(tiny_folder), str(adapter_folder)),
            Contender("sft", str(tiny_folder), str(second)),
            Contender("sft+HEF", str(tiny_folder), str(second), strategy="hef"),
        )
    )
    assert len(copies) == 1
    engine = LocalEngine(copies, loader.notes)
    together = replies(engine, "sft", "base", "sft+HEF", "aligned")
    alone = {c: replies(engine, c)[c] for c in together}
    assert together == alone and len(set(alone.values())) == 3


def test_adapters_go_to_the_models_device_and_never_to_the_first_gpu(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT by itself loads onto the GPU that it infers; here that one cannot be used."""
    for module in ("peft.peft_model", "peft.utils.save_and_load"):
        monkeypatch.setattr(f"{module}.infer_device", lambda: "cuda:7")
    plain = [make_adapter(tiny_folder, tmp_path / name) for name in ("one", "two")]
    dora = make_adapter(tiny_folder, tmp_path / "dora", use_dora=True)
    adapters = {"one": plain[0], "two": plain[1], "dora": dora}
    loader = Loader("cpu", "none")
    copies = loader.load([Contender(n, str(tiny_folder), str(a)) for n, a in adapters.items()])
    assert len(copies) == 2 and loader.notes["adapter dora"].startswith("merged")
    assert len(replies(LocalEngine(copies, loader.notes), *adapters)) == 3


def test_what_cannot_be_applied_per_row_is_merged(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_folder, tmp_path / "odd", use_dora=True)
    assert not read_shape(adapter).shareable
    engine = engine_of(tiny_folder, adapter)
    assert engine.describe()["adapter aligned"] == "merged: the adapter is a DoRA"
    assert len(replies(engine, "base", "aligned")) == 2


def test_what_can_be_neither_shared_nor_merged_is_one_sentence(
    tiny_folder: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_folder, tmp_path / "odd", lora_bias=True)
    with pytest.raises(EngineError, match="cannot be merged into its base") as caught:
        engine_of(tiny_folder, adapter)
    assert "\n" not in str(caught.value)


def test_a_lora_on_the_embedding_is_merged(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_folder, tmp_path / "e", target_modules=["q_proj", "embed_tokens"])
    assert not read_shape(adapter).shareable
    assert len(replies(engine_of(tiny_folder, adapter), "base", "aligned")) == 2


def test_the_plan_weighs_bytes_per_step() -> None:
    copy_7b = 4.45e9
    empo = choose(AdapterShape(2_684_000_000, 262_000_000, None), copy_7b, "nf4")
    usual = choose(AdapterShape(42_000_000, 0, None), copy_7b, "nf4")
    assert (empo.plan, usual.plan) == ("merged", "shared")
    assert empo.shared_bytes == pytest.approx(5.9e9, rel=0.02)
    huge = choose(AdapterShape(2_684_000_000, 0, None), copy_7b, "nf4")
    assert huge.plan == "merged" and "GB" in huge.reason


def test_an_override_is_obeyed_or_refused() -> None:
    small = AdapterShape(1000, 0, None)
    assert choose(small, 10**9, "nf4", "merged").plan == "merged"
    with pytest.raises(EngineError, match="EMPO_ADAPTER_PLAN"):
        choose(AdapterShape(1000, 500, None), 10**9, "nf4", "shared")


def wider(base: Path, folder: Path) -> Path:
    """A model of another shape with the same tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(base, folder)
    config = AutoConfig.from_pretrained(base)
    config.hidden_size, config.head_dim = 96, 48
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def other_family(base: Path, folder: Path) -> Path:
    """A model whose layers have other names."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    size = len(AutoTokenizer.from_pretrained(base))
    shutil.copytree(base, folder)
    config = GPT2Config(vocab_size=size, n_embd=32, n_layer=1, n_head=2, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("plan", ["shared", "merged"])
@pytest.mark.parametrize("make", [wider, other_family])
def test_a_base_and_an_adapter_that_do_not_fit_are_one_sentence(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path, plan: str, make: Any
) -> None:
    with pytest.raises(EngineError, match="does not fit the base model") as caught:
        engine_of(make(tiny_folder, tmp_path / "other"), adapter_folder, plan, force=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


def test_an_adapter_with_fewer_layers_than_it_should_have_is_refused(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    """PEFT only warns, and serves random or zero weights in their place."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(adapter_folder, broken)
    weights = load_file(broken / "adapter_model.safetensors")
    kept = {name: w for name, w in weights.items() if "layers.1." not in name}
    save_file(kept, broken / "adapter_model.safetensors")
    for plan in ("shared", "merged"):
        with pytest.raises(EngineError, match="does not fit the base model"):
            engine_of(tiny_folder, broken, plan)


def test_a_path_that_does_not_exist_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"There is no model at .*nowhere"):
        Loader("cpu", "none").load((Contender("base", str(tmp_path / "nowhere")),))
    with pytest.raises(EngineError, match=r"There is no adapter at .*nowhere"):
        engine_of(tiny_folder, tmp_path / "nowhere")


def test_an_unreachable_hub_is_one_sentence(tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match="org/none") as caught:
        Loader("cpu", "none").load((Contender("base", "org/none"),))
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="org/none") as caught:
        engine_of(tiny_folder, Path("org/none"))
    assert "\n" not in str(caught.value)


def test_a_broken_weight_file_is_one_sentence(tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        Loader("cpu", "none").load((Contender("base", str(broken)),))
    assert "\n" not in str(caught.value)


def test_remote_code_is_never_run(tiny_folder: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(tiny_folder, evil)
    config = json.loads((evil / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"},
    }
    (evil / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (evil / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(EngineError):
        Loader("cpu", "none").load((Contender("base", str(evil)),))
    assert not ran.exists()


@pytest.mark.slow
def test_int8_answers_too(tiny_folder: Path, adapter_folder: Path) -> None:
    assert len(replies(engine_of(tiny_folder, adapter_folder, bits="int8"), "base", "aligned")) == 2


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    from empo_demo.engine.device import pick_device

    assert pick_device("auto") in ("cpu", "cuda") and pick_device("cpu") == "cpu"
    missing = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(EngineError, match="EMPO_DEVICE asks for cuda"):
        pick_device(missing)
    if not torch.backends.mps.is_available():
        with pytest.raises(EngineError, match="EMPO_DEVICE asks for mps"):
            pick_device("mps", "nf4")


def test_an_adapter_of_another_base_is_refused_unless_forced(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter_folder, other)
    file = other / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": "org/another-model"}
    file.write_text(json.dumps(config))
    with pytest.raises(EngineError, match=r"trained on org/another-model.*--force-adapter"):
        engine_of(tiny_folder, other)
    assert len(replies(engine_of(tiny_folder, other, force=True), "base", "aligned")) == 2
    settings = Settings(device="cpu", force_adapter=True)
    roster = Roster(
        "r",
        (Contender("base", str(tiny_folder)), Contender("aligned", str(tiny_folder), str(other))),
        quantization="none",
    )
    assert len(replies(load_engine(settings, roster), "base", "aligned")) == 2


@pytest.mark.parametrize(
    ("trained_on", "base", "same"),
    [
        ("owner/Model", "owner/Model", True),
        ("owner/Model", "/data/model/", True),
        ("/home/a/model", "/data/model", True),
        ("owner/Model", "/c/models--owner--Model/snapshots/0123abcd", True),
        ("owner/Model", "owner/Model-2", False),
        ("", "owner/Model", True),
    ],
)
def test_a_base_is_known_by_the_last_part_of_its_name(
    tmp_path: Path, trained_on: str, base: str, same: bool
) -> None:
    from empo_demo.engine.weights.adapters import check_base

    config = {"base_model_name_or_path": trained_on}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    if same:
        check_base(tmp_path, base)
    else:
        with pytest.raises(EngineError, match="was trained on"):
            check_base(tmp_path, base)


def test_an_adapter_saved_with_another_tokenizer_is_refused(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(adapter_folder, other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, other / name)
    engine_of(tiny_folder, other)
    table = json.loads((other / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    one, two = list(vocabulary)[50:52]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(EngineError, match="saved with another tokenizer"):
        engine_of(tiny_folder, other)
    engine_of(tiny_folder, other, force=True)


def full(*_: Any, **__: Any) -> Any:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")


@pytest.mark.parametrize("where", ["model", "adapter"])
def test_a_full_memory_is_called_that(
    tiny_folder: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import peft
    import transformers

    if where == "model":
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    else:
        monkeypatch.setattr(peft.PeftModel, "from_pretrained", full)
    with pytest.raises(EngineError, match="memory") as caught:
        engine_of(tiny_folder, adapter_folder, "shared")
    assert "\n" not in str(caught.value) and "does not fit the base model" not in str(caught.value)
    assert "EMPO_QUANTIZATION=nf4" in str(caught.value)


def test_the_base_is_not_loaded_where_no_contender_uses_it(
    tiny_folder: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    real = Loader.model

    def counted(self: Loader, name: str) -> Any:
        loaded.append(name)
        return real(self, name)

    monkeypatch.setattr(Loader, "model", counted)
    loader = Loader("cpu", "none", "merged")
    copies = loader.load((Contender("aligned", str(tiny_folder), str(adapter_folder)),))
    assert len(copies) == 1 and str(tiny_folder) not in loaded and len(loaded) == 1


def test_adapters_are_not_held_twice(tiny_folder: Path, adapter_folder: Path) -> None:
    engine = engine_of(tiny_folder, adapter_folder, "shared")
    held = [name for name, p in engine.model_of("base").model.named_parameters() if p.numel()]
    assert not [name for name in held if "lora_" in name]
    assert len(set(replies(engine, "base", "aligned").values())) == 2


def test_old_gpus_get_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from empo_demo.engine.device import half_type

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, dtype in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _d, c=capability: c)
        assert half_type("cuda:0") == dtype
    assert half_type("cpu") == "bfloat16"


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[PAD]"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(EngineError, match=r"has tokens beyond the model's \d+ embeddings"):
        Loader("cpu", "none").load((Contender("base", str(folder)),))
