"""How fast the SEM reads: ms for one turn on one core, turns a second in batches on two.

The first is CPU time. A core that is shared with other programs is slower (caches, hyper-threads),
so the best reading of each text is given beside the median of all.

Run by hand: `python -m tests.bench.sem --json`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from empo_demo.dialogue import Turn
from empo_demo.empathy.sem import EmbeddedSEM

TEXTS = (
    "I was on my way home when a dog ran into the street and I had to brake so hard.",
    "My sister finally called me after two years and we talked the whole night.",
    "The landlord raised the rent again without telling anyone, and I am furious about it.",
    "Tomorrow is my first day at the new job, I have prepared everything and still cannot sleep.",
    "We used to spend every summer at the lake, and last week I found the old photographs.",
)
ANSWER = "Oh, that sounds like a lot at once. What did you do then?"


def dialogues(count: int) -> list[list[Turn]]:
    """Half single turns, half dialogues of three: about what the arena and ED hold."""
    made = []
    for i in range(count):
        turns = [Turn("user", TEXTS[i % len(TEXTS)])]
        if i % 2:
            last = TEXTS[(i + 2) % len(TEXTS)]
            turns += [Turn("assistant", ANSWER), Turn("user", last)]
        made.append(turns)
    return made


def one_turn(sem: EmbeddedSEM, rounds: int) -> tuple[float, float]:
    """Milliseconds of CPU time of reading one user turn on one core, with all heads.

    The median of the texts' best readings, and the median of all readings.
    """
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {}
    for number, turns in enumerate(dialogues(2 * rounds + 20)[::2]):
        started = time.process_time()
        sem.read(turns)
        if number >= 10:
            spent = (time.process_time() - started) * 1000
            times.setdefault(turns[0].content, []).append(spent)
    best = [min(own) for own in times.values()]
    return statistics.median(best), statistics.median(one for own in times.values() for one in own)


def batched(sem: EmbeddedSEM, count: int) -> float:
    """Turns a second over many dialogues, on two cores; the best of three (others compute too)."""
    torch.set_num_threads(2)
    made = dialogues(count)
    sem.read_many(made[:64])
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        sem.read_many(made)
        best = max(best, count / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    sem = EmbeddedSEM()
    best, usual = one_turn(sem, arguments.rounds)
    result = {
        "ms_per_turn_one_core": round(best, 2),
        "ms_per_turn_one_core_median": round(usual, 2),
        "turns_per_second_two_cores": round(batched(sem, arguments.count), 1),
    }
    if not arguments.json:
        print("Needed: at most 15 ms for one turn, at least 300 turns a second.")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
