"""The grid: implicit rewards against the reference, on the same dialogues in every column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empo_demo.errors import DataError, InvalidInput
from recipes.studies import grid


def pair(name: str, chosen: str = "good", rejected: str = "bad") -> grid.Pair:
    return grid.Pair(name, ({"role": "user", "content": name},), chosen, rejected)


def test_a_cell_counts_rewards_against_the_reference_and_log_p_alone() -> None:
    pairs = [pair("one"), pair("two")]
    (one_good, one_bad), (two_good, two_bad) = (p.keys for p in pairs)
    reference = {one_good: -5.0, one_bad: -1.0, two_good: -1.0, two_bad: -5.0}
    # The policy still finds the first chosen reply less likely, but raised it most.
    policy = {one_good: -3.0, one_bad: -2.0, two_good: -2.0, two_bad: -5.0}
    found = grid.cell("x", "y", pairs, policy, reference)
    assert (found.accuracy, found.plain, found.n) == (0.5, 0.5, 2)
    own = grid.cell(grid.REFERENCE, "y", pairs, reference, reference)
    assert own.accuracy is None and own.plain == 0.5


def test_every_column_holds_the_same_dialogues() -> None:
    columns = {
        "a": [pair(str(i)) for i in range(30)],
        "b": [pair(str(i), rejected="other") for i in range(10, 40)],
    }
    found = grid.sample(columns, 5, seed=0)
    ids = [[one.conv_id for one in column] for column in found.values()]
    assert ids[0] == ids[1] and len(ids[0]) == 5
    assert found == grid.sample(columns, 5, seed=0)


def test_files_over_different_dialogues_are_refused() -> None:
    with pytest.raises(DataError, match="share no dialogue"):
        grid.sample({"a": [pair("1")], "b": [pair("2")]}, 5, seed=0)


@pytest.mark.parametrize("values", [["x"], ["=x"], ["a=x", "a=y"], ["reference=x"]])
def test_an_option_that_names_nothing_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidInput, match="NAME=PATH was expected"):
        grid.named_paths(values, "--adapter")


@pytest.mark.slow
def test_the_grid_of_real_adapters_over_real_pairs(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="adapters are trained with TRL: pip install -e .[train]")
    from empo_demo.training import dpo, preferences, sft
    from empo_demo.training.recipe import Job

    base, start = str(data / "init"), tmp_path / "sft"
    columns = {}
    for control in ("none", "random"):
        columns[control] = tmp_path / f"{control}.jsonl"
        preferences.from_dialogues(
            data, columns[control], split="train", draws=2, seed=0, control=control
        )
    knobs = {"batch": 4, "micro": 2, "learning_rate": 1e-2}
    sft.run(Job(base, start, steps=2, **knobs), data)  # type: ignore[arg-type]
    job = Job(base, tmp_path / "x", adapter=start, steps=60, **knobs)  # type: ignore[arg-type]
    dpo.run_dpo(job, columns["none"], beta=0.5)

    cells = grid.run(base, start, {"opposite": tmp_path / "x"}, columns, limit=20)

    table = {(one.trained_on, one.tested_on): one for one in cells}
    assert len(cells) == 4 and all(one.n == 20 for one in cells)
    assert table["reference", "none"].accuracy is None
    learnt = table["opposite", "none"]
    assert learnt.accuracy is not None and learnt.accuracy > 0.6, "it was trained on these pairs"
    assert len(json.loads(grid.as_json(cells))["grid"]) == 4
    assert grid.as_table(cells).count("\n") == 3
