"""The model that is shown is the model that was asked for, or it is refused in one sentence.

Each input was a public bug report of those who serve models, made small.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from empo_demo.contenders.roster import Contender
from empo_demo.engine.assembly.served_copy import Assembly
from empo_demo.engine.assembly.trial import difference
from empo_demo.engine.loader import Loader
from empo_demo.engine.planning.members import members_of
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.engine.weights.adapters import check_base
from empo_demo.errors import EngineError
from tests.outside.architectures import tiny_config
from tests.outside.made import TEXT, TINY, engine_of, make_adapter, make_model, own, served

ASKED = "I lost my keys again."


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_rewrites_its_base_leaves_it_as_it_is(tmp_path: Path, start: str) -> None:
    """F1: an untrained PiSSA gives, with PEFT, exactly the base's text."""
    adapter = make_adapter(
        TINY,
        tmp_path / start,
        r=16,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=start,
    )
    right = own(TINY, text=ASKED)
    (aligned,), notes = served(TINY, adapter, texts=[ASKED])
    (base,), _ = served(TINY, texts=[ASKED])
    assert base == aligned == right and notes["adapter aligned"].startswith("merged")


@pytest.mark.slow
def test_the_trial_finds_an_adapter_that_rewrites_the_base_by_itself(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start of this kind has a name that nobody knows yet."""
    adapter = make_adapter(
        llama, tmp_path / "new", target_modules=["q_proj"], init_lora_weights="pissa"
    )
    monkeypatch.setattr("empo_demo.engine.weights.adapter_plan._PLAIN_STARTS", ("pissa",))
    monkeypatch.setattr("empo_demo.engine.assembly.merging.obstacle_to_merge", lambda _: None)
    (aligned,), notes = served(llama, adapter)
    assert notes["adapter aligned"] == "merged: loading it changes what the base computes"
    assert aligned == own(llama, adapter)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "stablelm"])
def test_attention_that_ours_cannot_compute_is_the_models_own(kind: str, tmp_path: Path) -> None:
    """F2 (soft caps), sinks, and F6 (code that never calls the attention interface)."""
    model = make_model(tmp_path / kind, kind)
    texts = [TEXT, "Hi."]
    found, notes = served(model, texts=texts)
    assert found == [own(model, text=text) for text in texts]
    assert "one row at a time by the model's own code" in notes[f"trial of {kind}"]
    assert notes["replies in company"] == "as alone"


def test_a_model_whose_cap_is_off_is_served_in_batches(tmp_path: Path) -> None:
    model = make_model(tmp_path / "g2", "gemma2", attn_logit_softcapping=None)
    found, notes = served(model)
    assert found == [own(model)] and not [note for note in notes if note.startswith("trial")]


def test_longrope_never_switches_for_a_neighbour(tmp_path: Path) -> None:
    """F3: from its original length on, LongRoPE takes other frequencies, for the whole batch."""
    model = make_model(tmp_path / "phi3", "phi3")
    short, long = "Hi!", " ".join([TEXT] * 5)
    (alone,), _ = served(model, texts=[short])
    (together, _), notes = served(model, texts=[short, long])
    assert alone == together == own(model, text=short)
    assert notes["replies in company"] in ("as alone", "may differ from alone by rounding")


def test_a_message_beyond_the_context_of_longrope_ends_no_other(tmp_path: Path) -> None:
    """F3 as it was reported: with an original length of 32, the longer one is refused, alone."""
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [8.0] * 8,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 32,
    }
    model = make_model(
        tmp_path / "phi3", "phi3", rope_parameters=rope, original_max_position_embeddings=32
    )
    engine = engine_of(model)
    decoding = Decoding(0.0, 1.0, 1.0, 12)
    short, long = (
        Request(side, "base", ({"role": "user", "content": text},), decoding)
        for side, text in (("a", "Hi."), ("b", " ".join([TEXT] * 2)))
    )
    alone = [event for event in engine.stream([short]) if isinstance(event, Finished)]
    together = list(engine.stream([short, long]))
    (same,) = (event for event in together if isinstance(event, Finished))
    assert same.text == alone[0].text and same.side == "a"
    (refused,) = (event for event in together if isinstance(event, Failed))
    assert refused.side == "b" and "too long for the model" in refused.error


def test_trained_tokens_are_merged_by_peft(llama: Path, tmp_path: Path) -> None:
    """F4: the trained rows of some tokens are no new size of the embeddings."""
    adapter = make_adapter(
        llama, tmp_path / "tokens", target_modules=["q_proj"], trainable_token_indices=[5, 6, 7]
    )
    assert served(llama, adapter)[0] == [own(llama, adapter)]


@pytest.mark.parametrize(
    "option", [{"alora_invocation_tokens": [17, 18]}, {"layer_replication": [(0, 2), (1, 2)]}]
)
def test_what_peft_itself_cannot_merge_is_one_sentence(
    llama: Path, tmp_path: Path, option: dict[str, Any]
) -> None:
    """F5: with invocation tokens, an adapter works only after them."""
    adapter = make_adapter(llama, tmp_path / "odd", target_modules=["q_proj"], **option)
    with pytest.raises(EngineError, match="cannot be merged into its base") as caught:
        served(llama, adapter)
    assert "\n" not in str(caught.value)


def test_a_setting_that_nobody_knows_yet_is_left_to_peft(llama: Path, tmp_path: Path) -> None:
    from empo_demo.engine.weights.adapter_plan import obstacle_to_share, read_config

    config = read_config(make_adapter(llama, tmp_path / "plain"))
    assert obstacle_to_share(config) is None
    assert obstacle_to_share({**config, "use_newlora": True}) == "the adapter uses use_newlora"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "big_bird"])
def test_a_model_that_reads_ahead_is_refused_at_load(kind: str, tmp_path: Path) -> None:
    """A.2: AutoModelForCausalLM opens it, but its logits depend on the tokens that follow."""
    model = make_model(tmp_path / kind, kind)
    with pytest.raises(EngineError, match=r"cannot be served here.*EMPO_ENGINE") as caught:
        served(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["blt", "emu3"])
def test_a_configuration_that_is_another_than_all_others_is_refused(
    kind: str, tmp_path: Path
) -> None:
    """BLT's names no number of layers; Emu 3 is saved under a name that cannot be opened."""
    model = make_model(tmp_path / kind, kind, config=tiny_config(kind))
    with pytest.raises(EngineError, match=f"{kind} cannot be served.*configuration.*EMPO_ENGINE"):
        served(model)


def of_nothing(folder: Path, number: float) -> None:
    """Make each weight of a folder's file `number`."""
    import torch
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*.safetensors")
    weights = {name: torch.full_like(one, number) for name, one in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("plan", ["auto", "merged"])
def test_weights_that_are_no_numbers_are_refused_at_load(
    llama: Path, tmp_path: Path, number: float, plan: Any
) -> None:
    """Nothing differs from NaN, so the trial let them pass, and each reply failed."""
    adapter = make_adapter(llama, tmp_path / "adapter")
    of_nothing(adapter, number)
    with pytest.raises(EngineError, match=r"adapter cannot be served.*no numbers") as caught:
        served(llama, adapter, plan=plan)
    assert "\n" not in str(caught.value)
    model = tmp_path / "model"
    shutil.copytree(llama, model)
    of_nothing(model, number)
    with pytest.raises(EngineError, match=r"cannot be served here.*no numbers.*EMPO_ENGINE"):
        served(model)


def test_a_token_that_a_model_rules_out_is_no_fault() -> None:
    import torch

    one = torch.tensor([[1.0, -torch.inf]])
    assert difference(one, one) == 0 and difference(one, -one) == torch.inf
    assert difference(torch.tensor([torch.nan]), torch.tensor([torch.nan])) == torch.inf


@pytest.mark.parametrize("kind", ["large changes", "DoRA with rsLoRA", "AdaLoRA"])
def test_rounding_alone_sets_no_adapter_apart(llama: Path, tmp_path: Path, kind: str) -> None:
    """A merge rounds at other places than PEFT: by 4.8e-5 where 3.2e-5 was allowed."""
    import peft

    config, options = None, {}
    if kind == "AdaLoRA":
        config = peft.AdaLoraConfig(task_type="CAUSAL_LM", total_step=10, target_modules=["q_proj"])
    else:
        options = {"use_dora": kind != "large changes", "use_rslora": True, "r": 16}
    adapter = make_adapter(llama, tmp_path / "adapter", config=config, **options)
    (found,), notes = served(llama, adapter)
    assert found.strip("\ufffd") == own(llama, adapter).strip("\ufffd")
    assert not [name for name in notes if name.startswith("trial")]


@pytest.mark.slow
def test_a_trial_is_made_once_and_its_result_kept(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a refusal; and other contents, types and plans are other trials."""
    monkeypatch.setattr("empo_demo.engine.assembly.copies._root", lambda: tmp_path / "verdicts")
    tries = []
    real = Assembly._reference

    def counted(self: Assembly, name: str, *rest: Any) -> Any:
        tries.append(name)
        return real(self, name, *rest)

    monkeypatch.setattr(Assembly, "_reference", counted)
    adapter = make_adapter(llama, tmp_path / "plain")
    assert served(llama, adapter) == served(llama, adapter) and len(tries) == 1
    served(llama, adapter, dtype="bfloat16")
    assert len(tries) == 3, "a small model is tried in its type and in fp32"
    copy = tmp_path / "copy"
    shutil.copytree(adapter, copy)
    served(llama, copy)
    assert len(tries) == 3, "the same contents elsewhere are the same adapter"
    model = make_model(tmp_path / "bert", "bert")
    for _ in range(2):
        with pytest.raises(EngineError, match="cannot be served here"):
            served(model)
    assert len(tries) == 6, "three ways were tried, once"


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantisation_that_was_asked_for_is_applied(
    llama: Path, tmp_path: Path, quantization: Any
) -> None:
    """Some files hold `"quantization_config": null`."""
    model = tmp_path / "null"
    shutil.copytree(llama, model)
    config = json.loads((model / "config.json").read_text()) | {"quantization_config": None}
    (model / "config.json").write_text(json.dumps(config))
    loaded = Loader("cpu", quantization).model(str(model))
    wanted = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization]
    assert wanted in {type(layer).__name__ for layer in loaded.modules()}


@pytest.mark.parametrize("window", [16, 128])
def test_a_configuration_that_refuses_to_be_without_a_window_is_served_or_refused(
    window: int, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Moshi says `sliding_window: int`, and setting it to None was a traceback."""
    config = tiny_config("moshi")
    config.sliding_window = window
    model = make_model(tmp_path / "moshi", "moshi", config=config)
    if window > 100:
        assert served(model)[0] == [own(model)]
    monkeypatch.setattr("empo_demo.engine.weights.model_weights.check_vocabulary", lambda *_: 1 / 0)
    with pytest.raises(EngineError, match="ZeroDivisionError") as caught:
        served(llama)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "bits"), [("mixtral", "nf4"), ("qwen2_moe", "int8")])
def test_experts_that_stay_in_16_bits_are_named(
    kind: str, bits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts are one parameter of three dimensions, which bitsandbytes leaves as it is."""
    monkeypatch.setattr("empo_demo.engine.assembly.copies._root", lambda: tmp_path / "kept")
    model = make_model(tmp_path / kind, kind)
    for _ in ("tried", "kept"):
        _, notes = served(model, quantization=bits, dtype="bfloat16")
        assert notes["quantisation"] == f"{bits}; experts in bf16"
    loader = Loader("cpu", bits)
    loader.dtype = "bfloat16"
    (member,) = members_of([Contender("moe", str(model))], loader.terms)
    assert member.trial.startswith(f"passed: {bits}; experts in bf16")
    assert member.held == f"{bits}; experts in bf16"


def test_a_gate_with_one_output_is_served_in_nf4(tmp_path: Path) -> None:
    """The kernel of bitsandbytes that packs weights for a CPU takes multiples of 32 outputs."""
    model = make_model(tmp_path / "moe", "qwen2_moe")
    adapter = make_adapter(model, tmp_path / "adapter")
    _, notes = served(model, adapter, quantization="nf4", dtype="bfloat16")
    assert notes["quantisation"] == "nf4; experts in bf16"


@pytest.mark.slow
def test_a_quantisation_that_was_not_applied_is_refused(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "_quantised", lambda _: {})
    with pytest.raises(EngineError, match="none of its layers can be held in nf4") as caught:
        served(llama, quantization="nf4", dtype="bfloat16")
    assert "\n" not in str(caught.value) and "EMPO_QUANTIZATION=none" in str(caught.value)


def test_layers_that_differ_in_their_sizes_are_counted_each() -> None:
    from empo_demo.engine.weights.shapes import kv_values
    from tests.outside.architectures import tiny_config

    text = tiny_config("gemma4_text")
    each = [2 * layer.num_key_value_heads * layer.head_dim for layer in text.per_layer_config]
    assert kv_values(text) == sum(each)


def test_a_pickled_adapter_is_told_how_to_convert_it(llama: Path, tmp_path: Path) -> None:
    """C.10, P1."""
    adapter = make_adapter(llama, tmp_path / "old")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(EngineError, match=r"\(\.bin\).*PEFT 0\.7 or newer"):
        served(llama, adapter)


def edited(base: Path, folder: Path, **settings: Any) -> Path:
    """A copy of `base` with other settings in its config.json."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("bits", ["none", "nf4", "int8"])
@pytest.mark.parametrize("lost", ["layers.1.mlp.up_proj", "lm_head", ""])
def test_weights_that_are_missing_are_not_made_up(
    llama: Path, tmp_path: Path, lost: str, bits: Any
) -> None:
    """transformers fills them with random numbers, and only warns."""
    from safetensors.torch import load_file, save_file

    model = edited(llama, tmp_path / "model", num_hidden_layers=2 if lost else 3)
    file = model / "model.safetensors"
    kept = {name: one for name, one in load_file(file).items() if not lost or lost not in name}
    save_file(kept, file, metadata={"format": "pt"})
    said = rf"its files lack {1 if lost else 9} of its weights, such as .*{lost or 'layers.2'}"
    with pytest.raises(EngineError, match=said) as caught:
        served(model, quantization=bits, dtype="bfloat16")
    assert "\n" not in str(caught.value)


def test_a_model_that_needs_foreign_code_asks_nobody(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers asks at the terminal whether to run it, for fifteen seconds."""
    names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    model = edited(llama, tmp_path / "own", model_type="own", auto_map=names)
    with pytest.raises(EngineError, match=r"needs code of its own.*EMPO_ENGINE"):
        served(model)
    assert "[y/N]" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 128}, "other sizes than its config.json says"),
        ({"vocab_size": 100}, "other sizes than its config.json says"),
        ({"quantization_config": {"bits": 4}}, "quant_method"),
        ({"dtype": "banana"}, "banana"),
        ({"model_type": "wonder"}, "model type `wonder`"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_sentence(
    llama: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    model = edited(llama, tmp_path / "odd", **settings)
    with pytest.raises(EngineError, match=f"cannot be loaded: .*{said}") as caught:
        served(model)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_one_sentence(tmp_path: Path) -> None:
    model = make_model(tmp_path / "small", "llama", vocab_size=1000)
    with pytest.raises(EngineError, match="tokens beyond the model's 1000 embeddings"):
        served(model)


def test_a_pointer_of_git_lfs_is_told_how_to_become_weights(llama: Path, tmp_path: Path) -> None:
    """A repository that was cloned without Git LFS holds such files."""
    words = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
    adapter = make_adapter(llama, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").write_text(words)
    with pytest.raises(EngineError, match="git lfs pull"):
        served(llama, adapter)
    for name in ("model.safetensors", "tokenizer.json"):
        model = tmp_path / name
        shutil.copytree(llama, model)
        (model / name).write_text(words)
        with pytest.raises(EngineError, match=f"{name} is only a pointer.*git lfs pull"):
            served(model)


@pytest.mark.parametrize("words", ["[]", "5", "{", '"x"'])
def test_settings_of_an_adapter_that_are_no_object_are_one_sentence(
    llama: Path, tmp_path: Path, words: str
) -> None:
    adapter = make_adapter(llama, tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text(words)
    with pytest.raises(EngineError, match=r"no readable adapter_config\.json"):
        served(llama, adapter)


@pytest.mark.parametrize(
    "kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"]
)
def test_an_adapter_that_adds_to_the_prompt_is_one_sentence(
    llama: Path, tmp_path: Path, kind: str
) -> None:
    import peft

    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = make_adapter(llama, tmp_path / kind, config=config)
    with pytest.raises(EngineError, match="cannot be served here; train a LoRA") as caught:
        served(llama, adapter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [r"C:\models\llama", r"D:\a b\llama\\", r"\\host\share\LLAMA"])
def test_a_windows_path_names_its_last_part(llama: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    check_base(tmp_path, str(llama))
    with pytest.raises(EngineError, match="was trained on"):
        check_base(tmp_path, "owner/other")


@pytest.mark.slow
def test_the_list_of_contenders_says_what_the_trials_found(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empo_demo.engine.assembly.copies._root", lambda: tmp_path / "verdicts")
    capped, reader = make_model(tmp_path / "g2", "gemma2"), make_model(tmp_path / "bert", "bert")
    plain, dora = (make_adapter(llama, tmp_path / n, use_dora=n == "dora") for n in ("a", "dora"))
    contenders = [
        Contender("base", str(llama)),
        Contender("plain", str(llama), str(plain)),
        Contender("dora", str(llama), str(dora)),
        Contender("capped", str(capped)),
        Contender("reader", str(reader)),
    ]
    loader = Loader("cpu", "none")
    before = members_of(contenders, loader.terms)
    assert {(one.trial, one.held) for one in before} == {("not yet", "")}
    loader.load(contenders[:-1])
    with pytest.raises(EngineError):
        loader.load(contenders[-1:])
    after = members_of(contenders, loader.terms)
    said = {one.id: one.trial for one in after}
    assert {one.held for one in after} == {"none"}
    assert [said[one] for one in ("base", "plain", "dora")] == ["passed"] * 3
    assert said["capped"].startswith("passed: answers one row at a time")
    assert said["reader"].startswith("refused: ")
