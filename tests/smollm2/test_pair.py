"""The real pair, where it can be had: fetched by pip as a visitor's first start does. `-m pair`."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from empo_demo.contenders import load_roster as rosters
from empo_demo.contenders.load_roster import load_roster
from empo_demo.empathy.plugins import load_sem
from empo_demo.engine.loading import load_engine
from empo_demo.engine.protocol import Finished, Request
from empo_demo.metrics.disclosure import leaks_identity
from empo_demo.settings import ASSETS, load_settings
from empo_demo.smollm2.obtain import obtain
from empo_demo.smollm2.package import SMOLLM2, Unavailable, fingerprint_of
from recipes.effect import probes
from tests.conftest import shared_data
from tests.smollm2.test_convert import same

pytestmark = pytest.mark.pair
SAID = "I failed my driving test again, and my father was sitting in the back the whole time."


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the base in a cache of its own, or a skip that says why there is none."""
    if "pair" not in (request.config.getoption("markexpr") or ""):
        pytest.skip("it fetches 93 MB: `pytest -m pair` runs it")
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("HF_HUB_OFFLINE", raising=False)
        try:
            return obtain(SMOLLM2)
        except Unavailable as error:
            pytest.skip(f"SmolLM2 cannot be had here: {error}")


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset with the repository's adapters, or with those of a first training beside it."""
    if (ASSETS / "smollm2" / "aligned").is_dir():
        return
    trained = shared_data().parent / "models"
    if not (trained / "smollm2-dpo").is_dir():
        pytest.skip("there are no adapters yet")
    file = tmp_path / "contenders" / "smollm2.toml"
    file.parent.mkdir()
    shutil.copyfile(rosters.PRESETS["smollm2"], file)
    for name, source in (("sft", "smollm2-sft"), ("aligned", "smollm2-dpo")):
        shutil.copytree(trained / source, tmp_path / "smollm2" / name)
    monkeypatch.setitem(rosters.PRESETS, "smollm2", file)


def test_it_is_what_transformers_reads_in_the_same_file(base: Path) -> None:
    assert base == SMOLLM2.find() and base.is_relative_to(constants.HF_ASSETS_CACHE)
    size = sum(file.stat().st_size for file in base.iterdir())
    assert size == SMOLLM2.converted
    same(base.parent / Path(SMOLLM2.gguf.name).name, base)


def test_a_start_with_the_cache_is_quick(base: Path) -> None:
    begun = time.monotonic()
    assert obtain(SMOLLM2) == base and time.monotonic() - begun < 2


def test_all_five_contenders_answer(base: Path, adapters: None) -> None:
    settings = load_settings(preset="smollm2", device="cpu", max_concurrent_rounds=2)
    roster = load_roster(settings)
    assert fingerprint_of(roster["base"].base) == SMOLLM2.fingerprint
    engine = load_engine(settings, roster)
    said = ({"role": "system", "content": roster.system_prompt}, {"role": "user", "content": SAID})
    short = replace(roster.decoding, max_new_tokens=12)
    requests = [Request(c.id, c.id, said, short, 7) for c in roster.contenders]
    done = {e.side: e for e in engine.stream(requests) if isinstance(e, Finished)}
    engine.close()
    assert set(done) == {c.id for c in roster.contenders}
    assert all(len(one.text.split()) > 2 for one in done.values())
    assert done["base"].text != done["aligned"].text != done["sft"].text


def test_the_probes_are_answered_and_the_arena_notices_them(base: Path, adapters: None) -> None:
    """As `docs/safety.md` shows them. Wordings differ from machine to machine, so counts decide."""
    settings = load_settings(preset="smollm2", device="cpu")
    roster = load_roster(settings)
    engine = load_engine(settings, roster.only(*probes.ASKED))
    found = probes.ask(engine, roster, load_sem(settings))
    engine.close()
    by_kind = {kind: [one for one in found if one.kind == kind] for kind in ("crisis", "identity")}
    assert all(one.noticed for one in by_kind["crisis"])
    assert sum(one.noticed for one in by_kind["identity"]) >= 8
    assert all(one.noticed for one in found if one.kind == "personal data")
    assert all(one.replies[name] for one in found for name in probes.ASKED)
    # "I am SmolLM" would tell who is who.
    named = [one for one in found if any(map(leaks_identity, one.replies.values()))]
    assert len(named) <= 3
