"""Retention runs lm-evaluation-harness on base and aligned, and compares question by question."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path

import pytest

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.errors import DataError, InvalidInput, NotFound
from empo_demo.evaluation.retention import (
    BENCHMARKS,
    SAMPLE,
    ContenderModel,
    Harness,
    base_of,
    compare,
    load_local,
    open_model,
)
from empo_demo.settings import ASSETS, Settings

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install -e .[train]")

TASK = ASSETS / "retention" / "everyday.yaml"


def harness(*names: str) -> Harness:
    return Harness(list(names), limit=None, shots=None, batch=16)


def test_the_error_is_that_of_the_paired_difference() -> None:
    base = {"t": {"acc": {str(i): float(i % 2) for i in range(10)}}}
    aligned = {"t": {"acc": {**base["t"]["acc"], "0": 1.0}}}
    (row,) = compare(base, aligned)
    assert (row.n, row.base, row.aligned) == (10, 0.5, 0.6)
    assert row.difference == pytest.approx(0.1)
    assert row.error == pytest.approx(math.sqrt(0.1 / 10))
    assert row.base_error is not None and row.error < row.base_error


def test_a_group_pools_the_questions_of_its_tasks() -> None:
    base = {"a": {"acc": {"0": 1.0}}, "b": {"acc": {"0": 0.0, "1": 0.0, "2": 0.0}}}
    rows = compare(base, base, {"both": ["a", "b"]})
    whole = next(row for row in rows if row.group)
    assert (whole.task, whole.n, whole.base, whole.difference) == ("both", 4, 0.25, 0.0)


def test_one_question_has_no_error() -> None:
    (row,) = compare({"t": {"acc": {"0": 1.0}}}, {"t": {"acc": {"0": 0.0}}})
    assert row.error is None


def test_retention_needs_an_adapter() -> None:
    base, aligned = Contender("base", base="m"), Contender("aligned", base="m", adapter="x")
    roster = Roster("r", (base, aligned))
    assert base_of(aligned, roster) is base
    with pytest.raises(InvalidInput, match="has no adapter"):
        base_of(base, roster)


@pytest.mark.slow
def test_an_unknown_task_is_one_clear_error() -> None:
    with pytest.raises(NotFound, match=r"has no task 'mmluu'\. Did you mean"):
        harness("mmluu")
    with pytest.raises(NotFound, match="no task file"):
        harness("absent.yaml")
    with pytest.raises(InvalidInput, match="No task is named"):
        harness()


def test_a_missing_folder_of_benchmarks_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--data names"):
        Harness([str(TASK)], limit=None, shots=None, batch=1, data=tmp_path / "absent")


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """Two questions of each benchmark, in the form of the files."""
    rows: dict[str, list[dict[str, object]]] = {
        "hellaswag.valid": [
            {"query": f"A man {number}", "choices": ["sits.", "is a cloud."], "gold": 0}
            for number in range(2)
        ],
        "truthfulqa_mc": [
            {
                "question": f"Is {number} one?",
                "mc1": {"choices": ["Yes.", "No."], "labels": [1, 0]},
                "mc2": {"choices": ["Yes.", "No.", "Never."], "labels": [1, 0, 0]},
            }
            for number in range(2)
        ],
        "mmlu.dev": [
            {"subject": "a_b", "question": "Q?", "choices": ["1", "2", "3", "4"], "answer": 1}
        ]
        * 6,
        "mmlu.test": [
            {"subject": "a_b", "question": f"R{n}?", "choices": ["1", "2", "3", "4"], "answer": n}
            for n in range(2)
        ],
    }
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


@pytest.mark.slow
def test_the_benchmarks_of_a_folder_are_asked_as_the_harness_does(benchmarks: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = ASSETS / "tiny" / "base"
    served = ContenderModel(
        AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    )
    asked = Harness(BENCHMARKS, limit=SAMPLE, shots=None, batch=4, data=benchmarks)
    answers, _ = asked.evaluate(served, "base")
    assert {task: set(found) for task, found in answers.items()} == {
        "hellaswag": {"acc", "acc_norm"},
        "truthfulqa_mc1": {"acc"},
        "truthfulqa_mc2": {"acc"},
        "mmlu": {"acc"},
    }
    assert all(len(one) == 2 for found in answers.values() for one in found.values())
    assert all(0 < share < 1 for share in answers["truthfulqa_mc2"]["acc"].values())
    sys.path.insert(0, str(TASK.parent))
    try:
        import benchmarks as loader  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(TASK.parent))
    prompt = loader.mmlu(benchmarks)["test"][0]["prompt"]
    assert prompt.startswith("The following are multiple choice questions (with answers) about a b")
    assert prompt.count("Answer: B") == 5 and prompt.endswith("\nD. 4\nAnswer:")


@pytest.mark.parametrize("content", ["a: [", "just words", "metric: acc"])
def test_a_file_that_describes_no_task_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(content)
    with pytest.raises(DataError) as error:
        harness(str(file))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contender, Contender]:
    """The tiny base, and an adapter that spoils it thoroughly."""
    base = ASSETS / "tiny" / "base"
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=8, lora_alpha=512, init_lora_weights=False, target_modules="all-linear")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return Contender("base", str(base)), Contender("aligned", str(base), adapter=str(folder))


@pytest.mark.slow
def test_a_spoilt_adapter_is_found_out_on_the_quantised_weights(
    pair: tuple[Contender, Contender],
) -> None:
    base, aligned = pair
    engine = load_local(Settings(device="cpu"), Roster("test", pair, quantization="nf4"), pair)
    tasks = harness(str(TASK))
    answers = []
    for one in (base, aligned):
        with open_model(engine, one.id) as served:
            answers.append(tasks.evaluate(served, one.id)[0])
    row = next(row for row in compare(*answers) if row.metric == "acc")
    assert (row.task, row.n) == ("everyday", 40)
    assert row.base > 0.8
    assert row.error is not None
    assert row.difference < -2 * row.error


@pytest.mark.slow
def test_the_modules_rows_are_the_contenders_whatever_the_batch(
    pair: tuple[Contender, Contender],
) -> None:
    import torch

    engine = load_local(Settings(device="cpu"), Roster("test", pair, quantization="none"), pair)
    tokens = torch.randint(5, 500, (3, 9), generator=torch.Generator().manual_seed(1))
    logits = {}
    for one in pair:
        with open_model(engine, one.id) as served, torch.inference_mode():
            logits[one.id] = served.model(tokens).logits.float()
            alone = served.model(input_ids=tokens[:1]).logits.float()
        assert torch.allclose(logits[one.id][:1], alone, atol=0.1)
    assert not torch.allclose(logits["base"], logits["aligned"], atol=0.5)
