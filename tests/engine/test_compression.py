"""A lower rank by truncated SVD: exact where the rank suffices, nearest where it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.engine.compression import compress, truncated
from empo_demo.errors import EngineError
from empo_demo.settings import ASSETS


def test_the_truncated_product_is_the_nearest_of_its_rank() -> None:
    torch.manual_seed(0)
    b, a = torch.randn(40, 16), torch.randn(16, 24)
    whole = 0.5 * b @ a
    u, values, v = torch.linalg.svd(whole, full_matrices=False)
    for rank in (1, 4, 12):
        small_b, small_a, kept, total = truncated(b, a, 0.5, rank)
        nearest = (u[:, :rank] * values[:rank]) @ v[:rank]
        found = small_b.float() @ small_a.float()
        assert (found - nearest).norm() < 0.01 * whole.norm(), "bf16 apart"
        share = float((values[:rank] ** 2).sum() / whole.norm() ** 2)
        assert kept / total == pytest.approx(share, 1e-4)
        assert small_b.shape == (40, rank) and small_a.shape == (rank, 24)


def test_a_layer_of_low_rank_loses_nothing() -> None:
    torch.manual_seed(0)
    b = torch.randn(30, 3) @ torch.randn(3, 16)
    a = torch.randn(16, 20)
    small_b, small_a, kept, total = truncated(b, a, 1.0, 4)
    assert kept == pytest.approx(total)
    assert (small_b.float() @ small_a.float() - b @ a).norm() < 0.01 * (b @ a).norm()


def product(folder: Path) -> dict[str, torch.Tensor]:
    """`scale · B A` by module."""
    config = json.loads((folder / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * weights[name.replace("lora_A", "lora_B")].float() @ weights[name].float()
        for name in weights
        if "lora_A" in name
    }


def test_a_compressed_adapter_is_one_that_peft_and_the_engine_read(tmp_path: Path) -> None:
    done = compress(ASSETS / "tiny" / "aligned", tmp_path / "small", 8)
    assert done.bytes < done.bytes_before and set(done.kept) >= {"q_proj", "down_proj"}
    before, after = product(ASSETS / "tiny" / "aligned"), product(tmp_path / "small")
    for name, whole in before.items():
        lost = (whole - after[name]).square().sum() / whole.square().sum()
        assert lost < 1 - min(done.kept.values()) + 0.25
    from empo_demo.contenders.roster import Contender
    from empo_demo.engine.loading import Loader

    base = str(ASSETS / "tiny" / "base")
    (copy,) = Loader("cpu", "none").load((Contender("a", base, str(tmp_path / "small")),))
    assert copy.rows is not None
    with pytest.raises(EngineError, match="is there already"):
        compress(ASSETS / "tiny" / "aligned", tmp_path / "small", 4)
    with pytest.raises(EngineError, match="has rank 8; give a --rank from 1 to 7"):
        compress(tmp_path / "small", tmp_path / "smaller", 8)


def test_half_an_adapter_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    source = ASSETS / "tiny" / "aligned"
    (half / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    weights = load_file(source / "adapter_model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1.mlp.up_proj.lora_B" not in k},
        half / "adapter_model.safetensors",
    )
    with pytest.raises(EngineError, match="lacks the matrix B"):
        compress(half, tmp_path / "out", 4)
    assert [p.name for p in tmp_path.iterdir()] == ["half"]


def test_the_command_says_what_was_kept_and_what_it_costs(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    rows = [
        {"context": ["i failed my exam again ."], "reference": "oh no .", "response": text}
        for text in ("i am so sorry to hear that .", "that must be hard .", "what happened ?")
    ]
    replies.write_text("\n".join(map(json.dumps, rows)))
    done = subprocess.run(
        [
            sys.executable, "-m", "empo_demo", "adapter", "compress",
            str(ASSETS / "tiny" / "aligned"), "--output", str(tmp_path / "small"), "--rank", "2",
            "--dialogues", str(replies), "--base", str(ASSETS / "tiny" / "base"), "--json",
        ],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rank"] == 2 and all(0 < kept <= 1 for kept in found["kept"].values())
    score = found["log_likelihood"]
    assert score["n"] == 3 and score["change"] == pytest.approx(score["after"] - score["before"])
    assert -10 < score["after"] < 0 and score["change"] != 0


def test_it_is_said_that_vllm_takes_no_adapter_with_whole_modules(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ASSETS / "tiny" / "aligned", source)
    config = json.loads((source / "adapter_config.json").read_text())
    (source / "adapter_config.json").write_text(
        json.dumps({**config, "modules_to_save": ["lm_head"]})
    )
    words = ["adapter", "compress", str(source), "-o", str(tmp_path / "small"), "--rank", "2"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "It replaces whole modules (lm_head), which vLLM takes in no adapter" in done.stdout
