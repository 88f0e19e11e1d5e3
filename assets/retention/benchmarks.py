"""HellaSwag, TruthfulQA and MMLU from files of a folder, as lm-evaluation-harness asks them.

`python -m empo_demo evaluate retention --data FOLDER` hands the folder over. Questions come in a
fixed random order, so that `--limit N` asks a random sample: the files are sorted by kind.
"""

import gzip
import json
import math
import random
from pathlib import Path

SHOTS = 5
LETTERS = "ABCD"


def hellaswag(data, **_ignored):
    return _split(_rows(data, "hellaswag.valid"))


def truthfulqa(data, **_ignored):
    return _split(_rows(data, "truthfulqa_mc"))


def mmlu(data, **_ignored):
    """Each question with the instructions and the five solved questions of its subject."""
    solved = {}
    for row in _rows(data, "mmlu.dev"):
        solved.setdefault(row["subject"], []).append(row)
    rows = []
    for row in _rows(data, "mmlu.test"):
        subject = row["subject"]
        parts = [_question(one) + f" {LETTERS[one['answer']]}" for one in solved[subject][:SHOTS]]
        opening = (
            "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}."
        )
        prompt = "\n\n".join([opening, *parts, _question(row)])
        rows.append({"prompt": prompt, "gold": row["answer"]})
    return _split(rows)


def probability_of_truth(doc, results):
    """MC2: the share of the probability of all answers that the true ones have."""
    odds = [math.exp(log_p) for log_p, _ in results]
    true = sum(p for p, label in zip(odds, doc["mc2"]["labels"], strict=True) if label)
    return {"acc": true / sum(odds)}


def _question(row):
    choices = [f"{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=True)]
    return "\n".join([row["question"].strip(), *choices, "Answer:"])


def _rows(folder, name):
    path = Path(folder) / f"{name}.jsonl.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: --data names the folder of the benchmarks")
    with gzip.open(path, "rt", encoding="utf8") as file:
        return [json.loads(line) for line in file]


def _split(rows):
    from datasets import Dataset, DatasetDict

    random.Random(0).shuffle(rows)
    return DatasetDict({"test": Dataset.from_list(rows)})
