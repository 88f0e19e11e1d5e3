"""Who takes part: presets, the TOML file, what overrides it, and what it refuses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from empo_demo.contenders.load_roster import PRESETS, load_roster
from empo_demo.contenders.roster import MOST_BOOST, Contender, Roster, as_json
from empo_demo.contenders.toml_file import add_contender, read_roster, write_roster
from empo_demo.dialogue import SYSTEM_PROMPT
from empo_demo.errors import SettingsError
from empo_demo.settings import load_settings

TWO = """
[[contenders]]
id = "base"
base = "model"

[[contenders]]
id = "aligned"
base = "model"
adapter = "adapter"
"""


def make_model(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def make_adapter(folder: Path, content: bytes = b"adapter") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(content)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    make_model(tmp_path / "model")
    make_adapter(tmp_path / "adapter")

    def _write(text: str) -> Path:
        path = tmp_path / "roster.toml"
        path.write_text(text, encoding="utf8")
        return path

    return _write


def load(path: Path, **overrides: object) -> Roster:
    return load_roster(load_settings(preset=str(path), **overrides))


def test_paths_are_relative_to_the_file(write: Callable[[str], Path], tmp_path: Path) -> None:
    roster = load(write(TWO))
    assert roster["base"].base == str(tmp_path / "model")
    assert roster["aligned"].adapter == str(tmp_path / "adapter")
    assert roster.quantization == "nf4" and not roster.tiny


def test_the_published_preset_is_chat_prompted_and_mostly_draws_base_against_aligned() -> None:
    roster = load_roster(load_settings(preset="empo-7b"))
    assert roster.system_prompt == SYSTEM_PROMPT
    assert roster["aligned"].adapter == "justtherightsize/zephyr-7b-sft-full124_d270"
    shares = roster.pair_weights()
    assert max(shares, key=shares.__getitem__) == ("base", "aligned")
    assert sum(shares.values()) == pytest.approx(1)


def test_the_tiny_preset_lists_the_five_contenders_and_is_marked_tiny() -> None:
    table = tomllib.loads(PRESETS["tiny"].read_text())
    ids = [row["id"] for row in table["contenders"]]
    assert ids == ["base", "aligned", "sft", "base+HEF", "aligned+HEF"]
    assert table["tiny"] is True and table["system_prompt"] == ""


def test_an_optional_contender_is_left_out_where_its_adapter_is_missing(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write(
        TWO + '\n[[contenders]]\nid = "sft"\nbase = "model"\nadapter = "sft"\noptional = true'
    )
    assert [c.id for c in load(path).contenders] == ["base", "aligned"]
    make_adapter(tmp_path / "sft")
    assert [c.id for c in load(path).contenders] == ["base", "aligned", "sft"]


def test_a_revision_changes_with_all_that_answers_and_with_nothing_else(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write(TWO + '\n[[contenders]]\nid = "hef"\nbase = "model"\nstrategy = "hef"\n')
    before = load(path)
    assert {c.revision: c.id for c in before.contenders} == {
        c.revision: c.id for c in load(path).contenders
    }
    assert len({c.revision for c in before.contenders}) == 3
    reweighted = load(write(path.read_text().replace('id = "hef"', 'id = "hef"\nweight = 9')))
    assert reweighted["hef"].revision == before["hef"].revision

    make_adapter(tmp_path / "adapter", b"retrained")
    retrained = load(path)
    assert retrained["aligned"].revision != before["aligned"].revision
    assert retrained["base"].revision == before["base"].revision
    for change in ({"quantization": "none"}, {"system_prompt": "Be brief."}):
        assert load(path, **change)["base"].revision != before["base"].revision
    more = load(path, hef_top_k=5)
    assert more["hef"].revision != before["hef"].revision
    assert more["base"].revision == before["base"].revision


def test_a_revision_does_not_depend_on_where_the_model_lies(tmp_path: Path) -> None:
    revisions = set()
    for name in ("here", "there"):
        make_model(tmp_path / name / "model")
        make_adapter(tmp_path / name / "adapter")
        (tmp_path / name / "roster.toml").write_text(TWO)
        revisions.add(load(tmp_path / name / "roster.toml")["aligned"].revision)
    assert len(revisions) == 1


def test_own_models_replace_the_embedded_ones(tmp_path: Path) -> None:
    base, adapter = make_model(tmp_path / "own"), make_adapter(tmp_path / "dpo")
    embedded = PRESETS["tiny"].parent.parent / "tiny" / "aligned"
    if not embedded.is_dir():
        pytest.skip("the embedded tiny models are not built")
    roster = load_roster(load_settings(base=str(base), aligned=str(adapter)))
    assert [c.id for c in roster.contenders] == ["base", "aligned", "base+HEF", "aligned+HEF"]
    assert {c.base for c in roster.contenders} == {str(base)}
    assert roster["aligned+HEF"].adapter == str(adapter)
    assert not roster.tiny and roster.system_prompt == SYSTEM_PROMPT
    whole = make_model(tmp_path / "whole")
    roster = load_roster(load_settings(base=str(base), aligned=str(whole)))
    assert roster["aligned"].base == str(whole) and roster["aligned"].adapter is None


def test_overrides_reach_a_roster_from_a_file(write: Callable[[str], Path], tmp_path: Path) -> None:
    other = make_model(tmp_path / "copy")
    roster = load(write(TWO), base=str(other), quantization="int8", system_prompt="Be kind.")
    assert roster["aligned"].base == str(other)
    assert roster["aligned"].adapter == str(tmp_path / "adapter")
    assert (roster.quantization, roster.system_prompt) == ("int8", "Be kind.")


THIRD = '\n[[contenders]]\nid = "third"\nbase = "model"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO + TWO, "lists the contender 'base' 2 times"),
        (TWO.replace('"model"', '"model"\nweight = 0'), "the weights sum to zero"),
        (TWO.replace('"adapter"', '"adapter"\nweight = 0'), "at least two contenders"),
        (TWO[: TWO.index("[[contenders]]", 20)], "at least two contenders"),
        (TWO + THIRD + 'strategy = "hefty"', "contender 3: 'strategy' holds 'hefty'"),
        (TWO + THIRD + 'adaptor = "x"', "contender 3: unknown key 'adaptor'; did you mean 'adapt"),
        (TWO + THIRD + "weight = -1", "'weight' holds -1; it may hold a number that is not neg"),
        (TWO + THIRD + "weight = nan", "'weight' holds nan"),
        (TWO + THIRD.replace('"third"', '"a b"'), "'id' holds 'a b'"),
        (TWO.replace('base = "model"\nadapter', "adapter"), "'aligned', has no base"),
        (TWO.replace('"model"', '"./missing"'), "no such folder"),
        (TWO.replace('"adapter"', '"./missing"'), "no such folder"),
        (TWO + THIRD + 'predictions = "none.csv"', "no such file"),
        ("[decoding]\ntop_p = 2\n" + TWO, "'top_p' holds 2; it may hold a number above 0"),
        ("sytem_prompt = 'x'\n" + TWO, "did you mean 'system_prompt'?"),
        ("a = [1\nb = 2\n" + TWO, "is not TOML"),
        ("x = 'y'\nbroken line\n" + TWO, "line 2"),
        ("a = " + "[" * 20_000, "nested too deep"),
        ("", "'contenders' is missing"),
        ("contenders = 3", "'contenders' holds 3"),
        ("contenders = [3, 4]", "contender 1"),
    ],
)
def test_a_bad_roster_is_one_line(write: Callable[[str], Path], text: str, said: str) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "roster.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"preset": "tinny"}, "EMPO_PRESET holds 'tinny'"),
        ({"preset": "nowhere.toml"}, "existing TOML file"),
        ({"preset": "empo-7b", "base": "/nowhere/model"}, "EMPO_BASE names the model"),
        ({"preset": "empo-7b", "aligned": "./nowhere"}, "EMPO_ALIGNED names the model"),
    ],
)
def test_a_bad_choice_names_its_variable(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_roster(load_settings(**overrides))


def roster_of(**weights: float) -> Roster:
    return Roster("test", tuple(Contender(name, "m", weight=w) for name, w in weights.items()))


def test_pairs_are_drawn_by_weight_and_in_both_orders() -> None:
    roster = roster_of(base=4, aligned=4, hef=1, never=0)
    shares = roster.pair_weights()
    assert shares == pytest.approx(
        {("base", "aligned"): 16 / 24, ("base", "hef"): 4 / 24, ("aligned", "hef"): 4 / 24}
    )
    rng = random.Random(5)
    drawn = Counter(tuple(c.id for c in roster.draw(rng)) for _ in range(3000))
    assert "never" not in {name for pair in drawn for name in pair}
    assert drawn["base", "aligned"] == pytest.approx(1000, abs=100)
    assert drawn["aligned", "base"] == pytest.approx(1000, abs=100)


def test_a_new_contender_is_drawn_more_often_until_it_has_as_many_votes() -> None:
    roster = roster_of(base=1, aligned=1, new=1)

    def share(votes: int) -> float:
        counts = {"base": 100, "aligned": 100, "new": votes}
        return sum(s for pair, s in roster.pair_weights(counts).items() if "new" in pair)

    shares = [share(votes) for votes in (0, 20, 60, 100)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(2 * MOST_BOOST / (2 * MOST_BOOST + 1))
    assert shares[3] == pytest.approx(2 / 3)


def test_an_added_contender_keeps_the_file_and_its_lineage(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write("# my contenders\n" + TWO)
    before = path.read_text()
    new = Contender(
        "aligned-2",
        str(tmp_path / "model"),
        str(make_adapter(tmp_path / "runs" / "2", b"new")),
        parent="aligned",
        votes=212,
        data_hash="0af1",
        label='the "second"',
    )
    add_contender(path, new)
    assert path.read_text().startswith(before.rstrip())
    assert 'adapter = "runs/2"' in path.read_text()
    assert replace(load(path)["aligned-2"], revision="") == new
    with pytest.raises(SettingsError, match="already lists a contender 'aligned-2'"):
        add_contender(path, new)
    assert [c.id for c in load(path).contenders] == ["base", "aligned", "aligned-2"]
    assert list(path.parent.glob(".*.tmp")) == []


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff# ours\n" + TWO,
        TWO + "\n[decoding]  # ours\ntemperature = 0.5\n",
        'contenders = [ # ours\n {id = "base", base = "model"},\n'
        ' {id = "aligned", base = "model", adapter = "adapter"},\n]\n',
    ],
)
def test_a_contender_is_added_to_any_layout_of_the_file(
    write: Callable[[str], Path], text: str
) -> None:
    path = write(text)
    add_contender(path, Contender("new", "owner/name", label='a "b" \u2028 \x7f'))
    assert [one.id for one in load(path).contenders] == ["base", "aligned", "new"]
    assert load(path)["new"].label == 'a "b" \u2028 \x7f'
    assert "# ours" in path.read_text(encoding="utf8")


def test_a_written_roster_reads_back_equal(write: Callable[[str], Path], tmp_path: Path) -> None:
    roster = read_roster(write('system_prompt = "Two\\nlines \\"quoted\\""\n' + TWO))
    write_roster(tmp_path / "elsewhere" / "copy.toml", roster)
    assert read_roster(tmp_path / "elsewhere" / "copy.toml") == roster


def test_the_listing_is_json_with_ids_and_revisions(write: Callable[[str], Path]) -> None:
    listing = json.loads(json.dumps(as_json(load(write(TWO)))))
    assert [row["id"] for row in listing["contenders"]] == ["base", "aligned"]
    assert all(len(row["revision"]) == 12 for row in listing["contenders"])
    assert [pair["share"] for pair in listing["pairs"]] == [1.0]


def test_reading_a_roster_imports_no_model() -> None:
    code = (
        "import sys; from empo_demo.contenders.load_roster import load_roster;"
        "from empo_demo.settings import load_settings;"
        "load_roster(load_settings(preset='empo-7b'));"
        "print([m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_guided_contender_without_a_reading_is_recorded_under_another_id() -> None:
    roster = Roster("test", (Contender("base", "m"), Contender("base+HEF", "m", strategy="hef")))
    guided = roster["base+HEF"]
    assert guided.id_in_round(reading=True) == "base+HEF"
    assert guided.id_in_round(reading=False) == "base+HEF~unguided"
    assert roster["base"].id_in_round(reading=False) == "base"
    assert roster["base+HEF~unguided"] is guided
