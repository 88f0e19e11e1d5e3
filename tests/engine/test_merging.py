"""Merging tensor by tensor: the same weights as PEFT's, in memory that does not grow."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from empo_demo.engine.assembly import copies, merging
from empo_demo.engine.assembly.copies import MergedCopy
from empo_demo.engine.assembly.merging import merge
from empo_demo.errors import EngineError

IDS = torch.arange(5, 45)[None]
PROJECTIONS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


def make_base(tiny_folder: Path, folder: Path, *, tied: bool) -> Path:
    """A random Llama beside the tiny tokenizer, with tied or own head, in fp32."""
    import shutil

    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(tiny_folder, folder)
    config = AutoConfig.from_pretrained(tiny_folder)
    config.tie_word_embeddings = tied
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, *, rows: int = 0, **options: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    wrapped = get_peft_model(
        model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS, **options})
    )
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(str(folder))
    return folder


def unmerged(base: Path, adapter: Path, rows: int = 0) -> torch.Tensor:
    """The logits of base and adapter as PEFT runs them, in fp32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        return PeftModel.from_pretrained(model, str(adapter)).eval()(IDS).logits[0]


def logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(IDS).logits[0]


CASES: list[tuple[str, bool, int, dict[str, Any]]] = [
    ("plain", False, 0, {}),
    ("tied", True, 0, {}),
    ("as EmPO's", False, 1, {"r": 96, "modules_to_save": ["embed_tokens", "lm_head"]}),
    ("tied, both replaced", True, 1, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ("rsLoRA", False, 0, {"use_rslora": True}),
    (
        "patterns",
        False,
        0,
        {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"layers.1.mlp.up_proj": 2}},
    ),
    ("regular expression", False, 0, {"target_modules": r".*\.layers\.1\..*q_proj"}),
    ("embedding", False, 0, {"target_modules": ["q_proj", "embed_tokens"]}),
    ("one layer", False, 0, {"layers_to_transform": [1]}),
    ("DoRA, by PEFT", False, 0, {"use_dora": True}),
]


@pytest.mark.parametrize(
    ("tied", "more", "options"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_merged_copy_answers_as_base_and_adapter_do(
    tiny_folder: Path, tmp_path: Path, tied: bool, more: int, options: dict[str, Any]
) -> None:
    base = make_base(tiny_folder, tmp_path / "base", tied=tied)
    rows = json.loads((base / "config.json").read_text())["vocab_size"] + more if more else 0
    adapter = make_adapter(base, tmp_path / "adapter", rows=rows, **options)
    merge(base, adapter, tmp_path / "out", shard_bytes=100_000)
    expected, found = unmerged(base, adapter, rows), logits(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1 or options.get("use_dora")
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.02 * expected.std(), "bf16 rounds to one in 256"
    plain = logits(base)
    width = plain.shape[1]
    assert (expected[:, :width] - plain).abs().max() > 0.5 * expected.std(), "the adapter matters"


def test_the_weights_are_those_of_merge_and_unload(tiny_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make_base(tiny_folder, tmp_path / "base", tied=False)
    adapter = make_adapter(base, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", shard_bytes=50_000)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    found: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == reference.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, reference[name].to(torch.bfloat16)), name


def test_new_tokens_get_the_mean_row_where_the_adapter_brings_none(
    tiny_folder: Path, tmp_path: Path
) -> None:
    base = make_base(tiny_folder, tmp_path / "base", tied=False)
    rows = json.loads((base / "config.json").read_text())["vocab_size"] + 2
    adapter = make_adapter(base, tmp_path / "adapter", rows=rows, modules_to_save=["embed_tokens"])
    # PEFT saves a resized head as well; an adapter of another tool may not.
    file = adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "lm_head" not in k}, file)
    merge(base, adapter, tmp_path / "out")
    (shard,) = (tmp_path / "out").glob("*.safetensors")
    head = load_file(shard)["lm_head.weight"].float()
    assert head.shape[0] == rows
    torch.testing.assert_close(head[-1], head[:-2].mean(0), atol=1e-3, rtol=0.05)


def build(folder: Path, layers: int, width: int = 512) -> None:
    """A base of so many layers, and an adapter over three projections of each."""
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    torch.manual_seed(0)
    sides = {
        "self_attn.q_proj": (width, width),
        "mlp.up_proj": (4 * width, width),
        "mlp.down_proj": (width, 4 * width),
    }
    weights, lora = {"model.embed_tokens.weight": torch.randn(1000, width).bfloat16()}, {}
    for number in range(layers):
        for name, (out, into) in sides.items():
            path = f"model.layers.{number}.{name}"
            weights[f"{path}.weight"] = torch.randn(out, into).bfloat16()
            lora[f"base_model.model.{path}.lora_A.weight"] = torch.randn(64, into)
            lora[f"base_model.model.{path}.lora_B.weight"] = torch.randn(out, 64)
    save_file(weights, base / "model.safetensors")
    save_file(lora, adapter / "adapter_model.safetensors")
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 1000}))
    targets = [name.split(".")[1] for name in sides]
    options = {"r": 64, "lora_alpha": 64, "target_modules": targets}
    (adapter / "adapter_config.json").write_text(json.dumps(options))


MEASURE = """
import sys
from pathlib import Path
import torch
from empo_demo.engine.assembly import merging
torch.set_num_threads(1)
torch.randn(600, 600) @ torch.randn(600, 600)
folder = Path(sys.argv[1])
import safetensors.torch, peft
status = Path("/proc/self/status")
def figure(name):
    lines = status.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = figure("VmRSS")
merging._copy_tokenizer = lambda *_: None
merging.merge(folder / "base", folder / "adapter", folder / "out", shard_bytes=20_000_000)
size = sum(f.stat().st_size for f in (folder / "base").iterdir()) / 2**20
print(f"{size:.0f} {figure('VmHWM') - before:.1f}")
"""


@pytest.mark.slow
def test_the_peak_of_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Shards of 20 MB; the larger of the two models has four times as many layers."""
    peaks = {}
    for layers in (8, 32):
        folder = tmp_path / str(layers)
        build(folder, layers)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True
        )
        size, peak = map(float, done.stdout.split())
        peaks[layers] = peak
        print(f"{size:.0f} MiB of weights: peak {peak:.0f} MiB above the start")
    assert peaks[32] < 2 * 20 + 45, "two shards, and one layer with its fp32 parts"
    assert peaks[32] - peaks[8] < 12


@pytest.fixture
def pair(tiny_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    base = make_base(tiny_folder, tmp_path / "base", tied=False)
    return base, make_adapter(base, tmp_path / "adapter")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "root", lambda: tmp_path / "copies")


def never(_folder: str) -> Any:
    raise AssertionError("nothing is quantised here")


def test_a_copy_is_made_once_and_again_only_when_damaged(pair: tuple[Path, Path]) -> None:
    copy = MergedCopy(*pair, "none")
    assert copy.find() is None
    folder = copy.make(never)
    stamp = (folder / "model.safetensors.index.json").stat().st_mtime_ns
    assert copy.make(never) == folder
    assert (folder / "model.safetensors.index.json").stat().st_mtime_ns == stamp
    shard = next(folder.glob("model*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    assert copy.find() is None, "a half-written shard is seen before it is loaded"
    assert copy.make(never) == folder and copy.find() == folder
    logits(folder)


def test_another_adapter_or_quantisation_is_another_copy(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = pair
    other = make_adapter(base, tmp_path / "other", r=2)
    folders = {
        MergedCopy(base, adapter, "none").folder,
        MergedCopy(base, adapter, "nf4").folder,
        MergedCopy(base, other, "none").folder,
        MergedCopy(base, adapter, "nf4", "float16").folder,
    }
    assert len(folders) == 4


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_a_quantised_copy_is_the_merged_model_quantised(pair: tuple[Path, Path], bits: Any) -> None:
    from empo_demo.engine.loader import Loader

    loader = Loader("cpu", bits)
    copy = MergedCopy(*pair, bits)
    folder = copy.make(loader.model)
    saved = json.loads((folder / "config.json").read_text())
    assert saved["quantization_config"][f"load_in_{4 if bits == 'nf4' else 8}bit"]
    assert (folder / "tokenizer_config.json").is_file()
    whole = MergedCopy(*pair, "none").make(never)
    with torch.no_grad():
        expected, found = (
            loader.model(str(whole))(IDS).logits,
            loader.model(str(folder))(IDS).logits,
        )
    assert torch.equal(expected, found)


@pytest.mark.slow
def test_the_model_that_was_quantised_is_gone_before_its_copy_is_loaded(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU two would not fit where one does. Nothing else collects in the meantime."""
    import gc
    import weakref

    from empo_demo.engine.loader import Loader

    loader, held = Loader("cpu", "nf4"), []

    def load(folder: str) -> Any:
        model = loader.model(folder)
        held.append(weakref.ref(model.model.layers[0].mlp.up_proj.weight))
        return model

    gc.disable()
    try:
        MergedCopy(*pair, "nf4").make(load)
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_process_that_died_while_merging_leaves_nothing_that_is_used(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = MergedCopy(*pair, "none")
    program = (
        "import os, sys; from pathlib import Path;"
        "from empo_demo.engine.assembly import copies, merging;"
        "copies.root = lambda: Path(sys.argv[3]);"
        "merging._Merge._write_config = lambda self, out: os._exit(9);"
        "copies.MergedCopy(Path(sys.argv[1]), Path(sys.argv[2]), 'none').make(None)"
    )
    words = [sys.executable, "-c", program, *map(str, pair), str(tmp_path / "copies")]
    assert subprocess.run(words, check=False).returncode == 9
    left = list((tmp_path / "copies").glob(".*"))
    assert left and copy.find() is None
    copy.make(never)
    assert copy.find() is not None and not left[0].exists()


def test_a_full_disk_is_said_before_the_first_byte(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda _path: usage)
    monkeypatch.setattr(merging, "merge", never)
    with pytest.raises(EngineError, match=r"needs .* GB of disk .* HF_ASSETS_CACHE"):
        MergedCopy(*pair, "none").make(never)


@pytest.mark.slow
def test_a_disk_that_fills_up_while_merging_leaves_nothing(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """A real refusal by the system: the process may write files of 100 kB at most."""
    program = (
        "import resource, signal, sys; from pathlib import Path;"
        "from empo_demo.engine.assembly import copies; from empo_demo.errors import EngineError\n"
        "copies.root = lambda: Path(sys.argv[3])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: copies.MergedCopy(Path(sys.argv[1]), Path(sys.argv[2]), 'none').make(None)\n"
        "except EngineError as error: print(error)\n"
    )
    words = [sys.executable, "-c", program, *map(str, pair), str(tmp_path / "copies")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "cannot be written to" in done.stdout and "HF_ASSETS_CACHE" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not list((tmp_path / "copies").iterdir())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_a_full_memory_while_merging_is_called_that(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(merging._Merge, "_with_lora", full)
    with pytest.raises(EngineError, match="memory is full") as caught:
        MergedCopy(*pair, "none").make(never)
    assert "does not fit" not in str(caught.value)


def test_a_broken_adapter_file_is_named(pair: tuple[Path, Path]) -> None:
    (pair[1] / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(EngineError, match=r"adapter_model\.safetensors cannot be read"):
        MergedCopy(*pair, "none").make(never)


def test_the_merged_tokenizer_is_the_adapters_with_the_bases_template(
    pair: tuple[Path, Path],
) -> None:
    from transformers import AutoTokenizer

    base, adapter = pair
    own = AutoTokenizer.from_pretrained(base)
    template, own.chat_template = own.chat_template, None
    own.save_pretrained(adapter)
    folder = MergedCopy(base, adapter, "none").make(never)
    assert AutoTokenizer.from_pretrained(folder).chat_template == template


@pytest.mark.slow
def test_enospc_of_the_quantised_save_is_a_sentence(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    class Full:
        def save_pretrained(self, _folder: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EngineError, match="No space left on device"):
        MergedCopy(*pair, "nf4").make(lambda _folder: Full())
    assert not list((tmp_path / "copies").iterdir())
