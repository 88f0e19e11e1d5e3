"""The plan before a byte is loaded: its arithmetic, its refusals, and what the 7B preset claims."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from empo_demo.contenders import load_roster as load
from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.loading import decide, load_engine
from empo_demo.engine.lockstep.batch import Batch
from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.planning import fits as budgets
from empo_demo.engine.planning.fits import Free, budget_of, check, fits, free_memory, table
from empo_demo.engine.planning.members import Terms, members_of
from empo_demo.engine.weights.adapter_plan import read_shape
from empo_demo.engine.weights.shapes import adapter_shape, model_shape, shape_from_config
from empo_demo.errors import EngineError
from empo_demo.settings import Settings

EMPO: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 1024,
    "lora_alpha": 64,
    "target_modules": [f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")],
    "modules_to_save": ["embed_tokens", "lm_head"],
    "base_model_name_or_path": "zephyr",
}
HUGE = 1e15


@pytest.fixture(scope="module")
def zephyr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of EmPO's base, without weights."""
    from transformers import MistralConfig

    folder = tmp_path_factory.mktemp("models") / "zephyr"
    MistralConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        sliding_window=4096,
        architectures=["MistralForCausalLM"],
    ).save_pretrained(folder)
    return folder


def hollow(folder: Path, base: Path) -> Path:
    """An adapter as EmPO publishes: a file of the true size whose bytes take no disk."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(EMPO))
    header: dict[str, Any] = {}
    end = 0
    for module, (into, out) in model_shape(str(base)).modules.items():
        last = module.rpartition(".")[2]
        shapes = {f"{module}.weight": (out, into)} if last in EMPO["modules_to_save"] else {}
        if last in EMPO["target_modules"]:
            shapes = {
                f"{module}.lora_A.weight": (1024, into),
                f"{module}.lora_B.weight": (out, 1024),
            }
        for name, shape in shapes.items():
            start, end = end, end + 4 * shape[0] * shape[1]
            header[f"base_model.model.{name}"] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [start, end],
            }
    text = json.dumps(header).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.fixture(scope="module")
def empo(zephyr: Path) -> tuple[Contender, ...]:
    """The 7B preset with the models' true shapes."""
    folders = {name: str(hollow(zephyr.parent / name, zephyr)) for name in ("dpo", "sft")}
    return (
        Contender("base", str(zephyr)),
        Contender("aligned", str(zephyr), folders["dpo"]),
        Contender("base+HEF", str(zephyr), strategy="hef"),
        Contender("sft", str(zephyr), folders["sft"], optional=True),
    )


def plan(sources: Any, **options: Any) -> budgets.Budget:
    chosen = {"quantization": "nf4", "device": "cuda", "rounds": 4, **options}
    terms = Terms(chosen["device"], chosen["quantization"], chosen.get("override", "auto"))
    members = members_of(sources, terms)
    return budget_of(members, terms, rounds=chosen["rounds"], new_tokens=512)


def test_an_adapters_weights_are_counted_without_its_files(
    zephyr: Path, empo: tuple[Contender, ...]
) -> None:
    shape = model_shape(str(zephyr))
    from_file = read_shape(Path(empo[1].adapter or ""))
    assert from_file == shape_from_config(EMPO, shape)
    assert from_file == adapter_shape(empo[1].adapter or "", shape)
    assert (from_file.lora, from_file.replaced) == (2_684_354_560, 262_144_000)


def test_what_the_7b_preset_claims_is_computed(empo: tuple[Contender, ...]) -> None:
    text = (load.PRESETS["empo-7b"]).read_text()
    two, three = plan(empo[:3]), plan(empo)
    assert [m.plan for m in three.members] == ["base", "merged", "base", "merged"]
    for figure in (two.copies[0].weights, two.members[1].shared, two.least, three.least):
        assert f"{figure / 1e9:.1f} GB" in text, figure
    assert len(two.copies) == 2 and two.weights == pytest.approx(8.90e9, rel=0.01)
    assert fits(two, Free(15.5e9, HUGE, HUGE)) and not fits(three, Free(15.5e9, HUGE, HUGE))
    assert two.disk == pytest.approx(14.5e9 + 4.45e9, rel=0.01), "16-bit scratch and the copy"


def test_the_kv_cache_gets_what_is_left_and_no_more_than_all_rounds_fill(
    empo: tuple[Contender, ...],
) -> None:
    budget = plan(empo[:2])
    per_round = 2 * 4096 * 131_072 * 2 * 4 / 3  # two copies; a quarter keeps prefixes
    assert budget.kv_round == pytest.approx(per_round)
    assert budget.kv_bytes(HUGE) == pytest.approx(4 * per_round)
    assert budget.kv_bytes(budget.fixed + 1e9) == pytest.approx(1e9)
    assert budget.kv_bytes(budget.fixed - 1) == 0


def test_where_the_plan_just_fits_a_round_of_the_promised_length_gets_in(
    empo: tuple[Contender, ...], exact_engine: LocalEngine
) -> None:
    """Every copy has its share, of which a part keeps prefixes; one round may need one copy."""
    for sources in (empo[:1], empo[:2], empo):
        budget = plan(sources)
        share = budget.kv_bytes(budget.least) // len(budget.copies)
        bound = Batch(exact_engine.model_of("base"), share).kv_bound
        assert bound >= 2 * budgets.FIRST_ROUND * 131_072
        alone = plan(sources, rounds=1)
        share = alone.kv_bytes(HUGE) // len(alone.copies)
        assert Batch(exact_engine.model_of("base"), share).kv_bound >= 2 * 4096 * 131_072


def test_what_does_not_fit_is_refused_with_numbers_and_what_would_fit(
    empo: tuple[Contender, ...],
) -> None:
    def replan(first: int | None = None, **change: Any) -> budgets.Budget:
        return plan(empo[:first], **{"quantization": "none", **change})

    budget = replan()
    with pytest.raises(EngineError) as caught:
        check(budget, Free(15.5e9, HUGE, HUGE), replan)
    said = str(caught.value)
    assert "weights 43.4 GB" in said or f"weights {budget.weights / 1e9:.1f} GB" in said
    assert "15.5 GB are free" in said
    assert "only the first two contenders with EMPO_QUANTIZATION=nf4 (13.6 GB)" in said
    assert "EMPO_QUANTIZATION=nf4 (" not in said.replace("with EMPO_QUANTIZATION=nf4 (", "")
    with pytest.raises(EngineError, match="No setting makes these models fit"):
        check(budget, Free(4e9, HUGE, HUGE), replan)
    with pytest.raises(EngineError, match="of this machine's memory"):
        check(budget, Free(HUGE, 1e8, HUGE), replan)
    with pytest.raises(EngineError, match=r"of disk for merged copies.*HF_ASSETS_CACHE"):
        check(budget, Free(HUGE, HUGE, 1e9), replan)
    check(budget, Free(None, HUGE, HUGE), replan)


def test_downloads_need_disk_too_and_maybe_another_one(empo: tuple[Contender, ...]) -> None:
    two = replace(plan(empo[:2]), download=27e9)
    assert two.disk == pytest.approx(two.copies_disk + 27e9)
    one_disk = r"45\.9 GB of disk for downloads and merged copies, of which 30\.0 GB.*HF_HOME"
    with pytest.raises(EngineError, match=one_disk):
        check(two, Free(HUGE, HUGE, 30e9))
    check(two, Free(HUGE, HUGE, 30e9, hub=30e9))
    with pytest.raises(EngineError, match=r"27\.0 GB of disk for downloads, of .*HF_HUB_CACHE"):
        check(two, Free(HUGE, HUGE, 30e9, hub=20e9))
    assert not fits(two, Free(HUGE, HUGE, 30e9, hub=20e9))
    unknown = replace(two, download=None)
    assert fits(unknown, Free(HUGE, HUGE, 30e9))
    assert "to download: unknown (offline)" in table(unknown, Free(HUGE, HUGE, 30e9))


def test_the_engine_is_refused_before_a_byte_is_read(
    empo: tuple[Contender, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no weights at all beside the base's configuration."""
    monkeypatch.setattr(
        "empo_demo.engine.planning.fits.free_memory", lambda _device: Free(8e9, 8e9, HUGE)
    )
    with pytest.raises(EngineError, match="These contenders need"):
        load_engine(Settings(device="cpu"), Roster("r", empo))


def test_optional_contenders_come_only_where_they_fit(
    empo: tuple[Contender, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    for one in empo:
        lines += ["[[contenders]]", f'id = "{one.id}"', f'base = "{one.base}"']
        lines += [f'adapter = "{one.adapter}"'] if one.adapter else []
        lines += ["optional = true"] if one.optional else []
    path = tmp_path / "roster.toml"
    path.write_text("\n".join(lines))
    ids = {}
    for free in (200e9, 34e9):
        monkeypatch.setattr(
            "empo_demo.engine.planning.fits.free_memory", lambda _d, f=free: Free(f, f, HUGE)
        )
        settings = Settings(preset=str(path), device="cpu")
        ids[free] = [c.id for c in decide(settings, load_roster(settings)).contenders]
    assert ids == {200e9: [c.id for c in empo], 34e9: ["base", "aligned", "base+HEF"]}


def test_the_table_names_every_contender_and_figure(empo: tuple[Contender, ...]) -> None:
    text = table(plan(empo), Free(24e9, 64e9, 100e9))
    figures = ("5.9 GB", "4.5 GB", "KV", "CUDA", "Host memory", "free 24.0 GB")
    for word in (*(c.id for c in empo), *figures):
        assert word in text, word


@pytest.mark.slow
def test_the_plan_of_the_tiny_models_is_near_what_they_take(tmp_path: Path) -> None:
    settings = Settings(device="cpu")
    roster = load_roster(settings)
    budget = decide(settings, roster).budget
    from empo_demo.engine.loader import Loader

    loader = Loader("cpu", roster.quantization)
    (copy,) = loader.load(roster.contenders)
    held = sum(p.numel() * p.element_size() for p in copy.model.parameters())
    quant = sum(
        t.numel() * t.element_size()
        for p in copy.model.parameters()
        if (state := getattr(p, "quant_state", None)) is not None
        for t in (state.absmax,)
    )
    assert budget.weights == pytest.approx(held + quant, rel=0.03)


def test_free_memory_of_the_cpu_is_the_hosts() -> None:
    free = free_memory("cpu")
    assert free.device == free.host and free.host > 0 and free.disk > 0


def test_recorded_contenders_cost_nothing(empo: tuple[Contender, ...], tmp_path: Path) -> None:
    recorded = replace(empo[1], predictions="file.csv")
    assert plan((recorded,)).copies == () and plan((recorded,)).least == budgets.CUDA_BYTES
