"""What the trial of a roster costs at the first load, and once its result is kept.

    OMP_NUM_THREADS=1 python -m tests.bench.trial [--preset smollm2] [--loads 3]

Each load is a process of its own: one with an empty cache of results, then one that finds them.
"First" is what a first load takes longer than one that finds results. "Kept" is what the latter
spends on the trial: fingerprints of all files, the key, reading the result, a look at the layers.
The base must have been converted before. Seconds of the processor hardly depend on what else the
machine does; those of the clock mean something on quiet cores only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OWED = {"first": 5.0, "kept": 0.2}
"""Seconds that a trial may cost."""
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}


def load_once(results: Path) -> dict[str, dict[str, float]]:
    """Load the roster here; seconds of the load, and of what a kept result costs, by clock."""
    import peft  # noqa: F401  each load needs it, so it is no part of a trial

    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.engine.assembly import copies, served_copy
    from empo_demo.engine.loading import decide
    from empo_demo.settings import load_settings

    kept = dict.fromkeys(CLOCKS, 0.0)

    def timed(room: Any, name: str) -> None:
        real: Callable[..., object] = getattr(room, name)

        def measured(*given: Any) -> object:
            begun = {clock: read() for clock, read in CLOCKS.items()}
            try:
                return real(*given)
            finally:
                for clock, read in CLOCKS.items():
                    kept[clock] += read() - begun[clock]

        setattr(room, name, measured)

    copies._root = lambda: results
    for room, name in (
        (copies.Tried, "find"),
        (copies.Tried, "keep"),
        (served_copy, "set_apart"),
        (served_copy, "held_in"),
    ):
        timed(room, name)
    settings = load_settings()
    decision = decide(settings, load_roster(settings))
    begun = {clock: read() for clock, read in CLOCKS.items()}
    decision.load()
    return {
        "load": {clock: read() - begun[clock] for clock, read in CLOCKS.items()},
        "kept": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="smollm2")
    parser.add_argument("--loads", type=int, default=3)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.results is not None:
        print(json.dumps(load_once(given.results)))
        return
    environment = {**os.environ, "EMPO_PRESET": given.preset}
    found: list[dict[str, dict[str, float]]] = []
    for _ in range(given.loads):
        with tempfile.TemporaryDirectory() as results:
            command = [sys.executable, "-m", "tests.bench.trial", "--results", results]
            anew, again = (
                json.loads(subprocess.check_output(command, env=environment).splitlines()[-1])
                for _ in range(2)
            )
        first = {clock: anew["load"][clock] - again["load"][clock] for clock in CLOCKS}
        found.append({"first": first, "kept": again["kept"], "load": again["load"]})
    print("| median (most), s | clock | processor | owed |\n|---|---|---|---|")
    for name in found[0]:
        columns = []
        for clock in CLOCKS:
            values = [one[name][clock] for one in found]
            columns.append(f"{statistics.median(values):.2f} ({max(values):.2f})")
        print(f"| {name} | {' | '.join(columns)} | {OWED.get(name, '')} |")


if __name__ == "__main__":
    main()
