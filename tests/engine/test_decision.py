"""One decision says who is served and how; the list, the preparation and the load follow it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.loader import Loader
from empo_demo.engine.loading import decide
from empo_demo.engine.planning.fits import Free
from empo_demo.errors import EngineError, SettingsError
from empo_demo.settings import Settings

HUGE = 1e15
CPU = Settings(device="cpu")


@pytest.fixture
def sets_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No adapter passes its trial, and nothing of earlier trials and copies is known."""

    def judge(_weights: Any, reference: Any) -> dict[str, str | None]:
        return {name: "its logits differ" if name else None for name in reference.expected}

    monkeypatch.setattr("empo_demo.engine.assembly.trial.judge", judge)
    monkeypatch.setattr("empo_demo.engine.assembly.copies._root", lambda: tmp_path / "trials")
    (tmp_path / "copies").mkdir()
    for module in ("assembly.copies", "planning.fits"):
        monkeypatch.setattr(
            f"empo_demo.engine.{module}.root", lambda: tmp_path / "copies", raising=False
        )


@pytest.fixture
def pair(tiny_folder: Path, adapter_folder: Path) -> Roster:
    contenders = (
        Contender("base", str(tiny_folder)),
        Contender("aligned", str(tiny_folder), str(adapter_folder)),
    )
    return Roster("pair", contenders, quantization="none")


@pytest.mark.slow
def test_an_adapter_that_its_trial_sets_apart_is_counted_as_a_copy(
    sets_apart: None, pair: Roster
) -> None:
    before = decide(CPU, pair)
    assert [one.plan for one in before.budget.members] == ["base", "shared"]
    assert len(before.budget.copies) == 1
    engine: Any = before.load()
    assert engine.model_of("base") is not engine.model_of("aligned")
    after = decide(CPU, pair)
    for budget in (before.budget, after.budget):
        assert [one.plan for one in budget.members] == ["base", "merged"]
        assert len(budget.copies) == 2 and "differ" in budget.members[1].reason
    assert after.budget.copies_disk == 0 and after.budget.members[1].prepared
    trial = after.budget.members[1].trial
    assert trial.startswith("passed") and "(merged, because its logits differ" in trial


@pytest.mark.slow
def test_a_copy_that_a_trial_asks_for_is_refused_before_it_is_made_if_it_does_not_fit(
    sets_apart: None, pair: Roster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = decide(CPU, pair)
    room = decision.budget.least * 1.05
    monkeypatch.setattr(
        "empo_demo.engine.planning.fits.free_memory", lambda _device: Free(room, HUGE, HUGE)
    )
    with pytest.raises(EngineError, match="These contenders need") as caught:
        decision.load()
    assert "EMPO_ADAPTER_PLAN=shared" not in str(caught.value), "the trial has refused that"
    assert not list((tmp_path / "copies").iterdir())


@pytest.mark.slow
def test_prepare_makes_what_the_trial_asks_for_and_then_loading_makes_nothing(
    sets_apart: None, pair: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = decide(CPU, pair).prepare()
    assert made.adapter == pair.contenders[1].adapter and made.folder.is_dir()
    assert not made.was_there
    (again,) = decide(CPU, pair).prepare()
    assert again.was_there and again.folder == made.folder
    loaded = []
    real = Loader.model
    monkeypatch.setattr(Loader, "model", lambda self, name: loaded.append(name) or real(self, name))
    decide(CPU, pair).load()
    assert sorted(loaded) == sorted([pair.contenders[0].base, str(made.folder)]), "each once"


@pytest.mark.slow
def test_shared_by_order_is_refused_where_the_trial_has_set_the_adapter_apart(
    sets_apart: None, pair: Roster
) -> None:
    decide(CPU, pair).load()
    with pytest.raises(EngineError, match="holds 'shared', but with the adapter"):
        _ = decide(Settings(device="cpu", adapter_plan="shared"), pair).budget


def test_an_adapter_of_another_base_is_refused_by_the_plan(pair: Roster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in Path(pair.contenders[0].base).iterdir():
        (other / file.name).symlink_to(file)
    config = (other / "config.json").read_text()
    (other / "config.json").unlink()
    (other / "config.json").write_text(config)
    aligned = Contender("aligned", str(other), pair.contenders[1].adapter)
    with pytest.raises(EngineError, match="was trained on"):
        _ = decide(CPU, Roster("r", (aligned,), quantization="none")).budget


def test_where_nothing_is_optional_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from empo_demo.contenders.load_roster import load_roster;"
        "from empo_demo.engine.loading import decide;"
        "from empo_demo.settings import load_settings;"
        "settings = load_settings(); decide(settings, load_roster(settings));"
        "print([m for m in ('torch', 'transformers', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_who_is_named_is_not_optional_and_who_is_left_out_is_not_drawn() -> None:
    sft = Contender("sft", "m", "a", optional=True)
    roster = Roster("r", (Contender("base", "m"), Contender("aligned", "m", "b"), sft))
    assert [c.id for c in roster.without({"sft": "why"}).contenders] == ["base", "aligned"]
    assert [(c.id, c.optional) for c in roster.only("sft", "base").contenders] == [
        ("sft", False),
        ("base", False),
    ]
    with pytest.raises(SettingsError, match="at least two contenders"):
        roster.without(["sft", "aligned"])
