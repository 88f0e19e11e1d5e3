"""How long scoring 2,540 replies takes: `python -m tests.bench.score [--json]`.

Without models on one core (aim: under 10 s); EPITOME by the embedded SEM on two (under 60 s). Each
is measured in its own process, started anew, so that imports and loading count.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 2_540
LIGHT = "length,distinct,vad,nidf,diff-epitome"
LEVELS = [f"{side}_{m}_scores" for side in ("pred", "gt") for m in ("ER", "EX", "IP")]
WORDS = """
I we you they she was were feel felt think know lost found sad happy proud scared dog cat job
friend mother father school exam house car yesterday today never always really so very what how
why did do sorry glad hope wish that this it and but because with for about
"""


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS.split(), k=words)).capitalize() + draw.choice(".!?")


def write(path: Path, *, levels: bool) -> None:
    """A file in EmPO's format with nonsense of our own, as long as the published ones."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["prevs", "gen_targets", "gens", *(LEVELS if levels else [])])
        for _ in range(ROWS):
            texts = [sentence(draw, draw.randint(5, 25)) for _ in range(3)]
            writer.writerow(texts + ([draw.randint(0, 2) for _ in LEVELS] if levels else []))


def seconds(path: Path, metrics: str, cores: int) -> float:
    """Wall time of `score` in a new process that may use so many cores."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "HF_HUB_OFFLINE": "1"}
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", "empo_demo", "score", "--predictions", str(path)]
    begin = time.perf_counter()
    subprocess.run(
        [*command, "--metrics", metrics, "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stored, bare = Path(folder) / "stored.csv", Path(folder) / "bare.csv"
        write(stored, levels=True)
        write(bare, levels=False)
        result = {
            "rows": ROWS,
            "model_free_seconds_one_core": round(seconds(stored, LIGHT, 1), 2),
            "epitome_seconds_two_cores": round(seconds(bare, "diff-epitome", 2), 2),
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>28} {value}")


if __name__ == "__main__":
    main()
