"""Does the loop learn? Simulated voters, three seeds of a taste and three of a coin; by hand:

    python -m recipes.studies.loop_proof --data ../shared/data --output runs/loop-proof

Voters who prefer the reply that asks a question cast 500 votes through the real arena; the
retrained adapter answers fresh dialogues beside its parent. Holds when every seed of the taste
raises the share of replies with a question (McNemar, p < 0.05) and every seed of the coin stays
within ± BOUND (two one-sided tests, 5 %). One JSON line per run on stdout; runs that are already
in OUT/results.jsonl are not repeated.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Roster
from empo_demo.contenders.toml_file import write_roster
from empo_demo.engine.loading import load_engine
from empo_demo.settings import Settings, load_settings
from empo_demo.training import loop
from recipes.studies.simulate import Voters, asks, first_turns, replies, shift, vote

BOUND = 0.10
"""Stated before the runs: a change of ten points in the share of questions is none."""


def settings_of(arguments: argparse.Namespace, folder: Path) -> Settings:
    return load_settings(
        preset=arguments.preset,
        database=f"sqlite:///{folder}/votes.sqlite3",
        quantization="none",
        device="cpu",
        max_concurrent_rounds=16,
    )


def start_roster(settings: Settings, course: loop.Course) -> None:
    """Only the base and the parent take part, so that each vote compares these two."""

    roster = load_roster(settings)
    pair = tuple(
        contender for contender in roster.contenders if contender.id in ("base", course.parent)
    )
    decoding = replace(roster.decoding, max_new_tokens=24)
    course.out.mkdir(parents=True, exist_ok=True)
    write_roster(course.roster, replace(roster, contenders=pair, decoding=decoding))


def measure(
    settings: Settings,
    roster: Roster,
    names: tuple[str, str],
    seed: int,
    fresh: list[str],
) -> dict[str, Any]:
    engine = load_engine(settings, roster)
    said = replies(engine, roster, names, fresh, seed=seed)
    answers = {name: [asks(text) for text in said[name]] for name in names}
    words = {name: sum(len(t.split()) for t in said[name]) / len(fresh) for name in names}
    result = shift(answers[names[0]], answers[names[1]])
    return {**asdict(result), "within_bound": result.within(BOUND), "words": words}


def once(taste: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    folder = (arguments.out / f"{taste}-{seed}").resolve()
    settings = settings_of(arguments, folder)
    course = loop.Course(
        settings.database,
        folder,
        parent=arguments.parent,
        epochs=arguments.epochs,
        seed=seed,
        learning_rate=arguments.learning_rate,
        batch=16,
        length=96,
    )
    start_roster(settings, course)
    roster = loop.open_roster(settings, course)
    verdicts = vote(
        settings, course, Voters(taste, arguments.votes, arguments.data), roster, seed=seed
    )
    voted = time.monotonic()
    child = loop.retrain(course, roster)
    trained = time.monotonic()
    roster = loop.open_roster(settings, course)
    fresh = random.Random(seed).sample(first_turns(arguments.data, "valid"), arguments.fresh)
    result = measure(settings, roster, (course.parent, child.id), seed, fresh)
    return {
        "taste": taste,
        "seed": seed,
        "verdicts": verdicts,
        "pairs": child.votes,
        "data_hash": child.data_hash,
        "parent_id": child.parent,
        **result,
        "seconds": {
            "voting": round(voted - started),
            "training": round(trained - voted),
            "answering": round(time.monotonic() - trained),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the dialogue files")
    parser.add_argument(
        "-o", "--output", "--out", dest="out", type=Path, default=Path("runs/loop-proof")
    )
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--parent", default="aligned")
    parser.add_argument("--votes", type=int, default=500)
    parser.add_argument("--fresh", type=int, default=600, help="fresh dialogues to answer")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tastes", nargs="+", default=["question", "random"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "results.jsonl"
    lines = log.read_text(encoding="utf8").splitlines() if log.is_file() else []
    done = {(row["taste"], row["seed"]): row for row in map(json.loads, lines)}
    for seed in arguments.seeds:
        for taste in arguments.tastes:
            if (taste, seed) not in done:
                done[taste, seed] = once(taste, seed, arguments)
                with log.open("a", encoding="utf8") as file:
                    file.write(json.dumps(done[taste, seed]) + "\n")
            print(json.dumps(done[taste, seed]), flush=True)
    learned = all(
        row["p"] < 0.05 and row["difference"] > 0
        for (taste, _), row in done.items()
        if taste == "question"
    )
    still = all(row["within_bound"] for (taste, _), row in done.items() if taste == "random")
    print(json.dumps({"runs": len(done), "taste_learned": learned, "coin_within_bound": still}))


if __name__ == "__main__":
    main()
