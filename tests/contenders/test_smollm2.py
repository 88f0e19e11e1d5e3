"""The pair that everybody meets: its preset, when it is the default, and what EMPO_BASE changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empo_demo.contenders import load_roster as rosters
from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Roster
from empo_demo.contenders.strategies import prepare
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.loading import load_engine
from empo_demo.errors import EngineError
from empo_demo.settings import Settings, default_preset, load_settings
from empo_demo.smollm2.package import SMOLLM2

PROMPT = (
    "You are a friendly listener who answers with empathy. Reply in one or two short sentences."
)
READING = Reading(
    (("proud", 0.9), *((e, 0.001) for e in EMOTIONS if e != "proud")),
    (Cause(2, 8, "passed", 0.9),),
    "s@1",
    1.0,
)


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The preset's file beside adapters that are only named."""
    file = tmp_path / "assets" / "contenders" / "smollm2.toml"
    file.parent.mkdir(parents=True)
    file.write_text(rosters.PRESETS["smollm2"].read_text(encoding="utf8"), encoding="utf8")
    for name in ("sft", "aligned"):
        folder = tmp_path / "assets" / "smollm2" / name
        folder.mkdir(parents=True)
        config = {"base_model_name_or_path": f"HuggingFaceTB/{SMOLLM2.model}", "name": name}
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf8")
        (folder / "adapter_model.safetensors").write_bytes(name.encode())
    monkeypatch.setitem(rosters.PRESETS, "smollm2", file)
    return file


def smollm2(**more: str) -> Roster:
    return load_roster(load_settings(preset="smollm2", **more))


def test_it_is_the_default_as_soon_as_both_adapters_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_preset(tmp_path) == "tiny"
    for name, expected in (("sft", "tiny"), ("aligned", "smollm2")):
        folder = tmp_path / "smollm2" / name
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"")
        assert default_preset(tmp_path) == expected
    assert Settings().preset == "tiny", "EMPO_PRESET decides in the tests"
    monkeypatch.delenv("EMPO_PRESET")
    assert Settings().preset == default_preset()


def test_five_contenders_share_one_base_and_one_prompt(preset: Path) -> None:
    roster, tiny = smollm2(), load_roster(load_settings(preset="tiny"))
    assert [c.id for c in roster.contenders] == [c.id for c in tiny.contenders]
    assert {c.base for c in roster.contenders} == {str(SMOLLM2.folder)}
    assert {Path(c.adapter).name for c in roster.contenders if c.adapter} == {"sft", "aligned"}
    assert roster.pair_weights() == pytest.approx(tiny.pair_weights())
    most = max(roster.pair_weights().items(), key=lambda pair: pair[1])[0]
    assert set(most) == {"base", "aligned"}
    assert roster.system_prompt == PROMPT and roster.quantization == "none"
    assert (roster.pair, tiny.pair) == ("smollm2", "tiny")


def test_the_hints_are_compact_and_follow_the_one_prompt(preset: Path) -> None:
    roster = smollm2()
    dialogue = Dialogue().plus("user", "I passed!")
    plain, hinted = (
        prepare(roster[name], dialogue, READING, roster).messages for name in ("base", "base+HEF")
    )
    assert plain[0] == {"role": "system", "content": PROMPT} and plain[1:] == hinted[1:]
    hint = "The user feels proud because of: passed."
    assert hinted[0] == {"role": "system", "content": f"{PROMPT}\n\n{hint}"}


def test_its_contenders_are_other_models_than_those_of_the_tiny_pair(preset: Path) -> None:
    tiny = load_roster(load_settings(preset="tiny"))
    revisions = [c.revision for roster in (smollm2(), tiny) for c in roster.contenders]
    assert len(set(revisions)) == 10
    assert smollm2()["base"].revision == smollm2()["base"].revision


def test_a_named_folder_with_the_same_model_keeps_the_adapters(
    preset: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / SMOLLM2.model, tmp_path / "renamed"]
    for folder in copies:
        folder.mkdir()
        config = {"_name_or_path": SMOLLM2.model if folder.name == "renamed" else ""}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
        roster = smollm2(base=str(folder))
        assert {c.base for c in roster.contenders} == {str(folder)}
        assert len(roster.contenders) == 5 and roster.system_prompt == PROMPT


def test_another_base_leaves_the_adapters_out(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-7b"
    other.mkdir()
    (other / "config.json").write_text("{}", encoding="utf8")
    roster = smollm2(base=str(other))
    assert [c.id for c in roster.contenders] == ["base", "base+HEF"]
    assert roster.name == "own models" and roster.quantization == "nf4"
    assert not roster.compact_hints and roster.pair == "own"
    both = smollm2(base=str(other), aligned=str(preset.parent.parent / "smollm2" / "sft"))
    assert "aligned" in [c.id for c in both.contenders]


def test_a_server_knows_the_base_by_its_name(preset: Path) -> None:
    roster = smollm2(engine="http://localhost:1")
    assert {c.base for c in roster.contenders} == {SMOLLM2.model} and roster.pair == "smollm2"


def test_the_terminal_says_what_to_do_where_the_base_cannot_be_had(preset: Path) -> None:
    settings = load_settings(preset="smollm2", device="cpu")
    with pytest.raises(EngineError) as caught:
        load_engine(settings, smollm2())
    assert str(caught.value) == (
        "SmolLM2-135M-Instruct is not on this machine. HF_HUB_OFFLINE is set, so nothing is "
        "downloaded. The pair in the repository needs no download: EMPO_PRESET=tiny."
    )
