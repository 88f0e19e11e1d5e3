"""The classifier of crisis language: `python -m recipes.crisis fit --data DATA`, then `measure`.

`fit` writes `assets/safety/crisis.safetensors`. `measure` judges the sentences that nobody who
tunes has read, and writes the table of `docs/safety.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from empo_demo.empathy import crisis
from recipes.crisis.fit import fit
from recipes.crisis.measure import DOCUMENT, measured, written


def main() -> None:
    """Fit the classifiers, or measure the detection and write its table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.crisis", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    fitting = kinds.add_parser("fit", help="fit both classifiers and write them to one file")
    fitting.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    fitting.add_argument("-o", "--output", type=Path, default=crisis.WEIGHTS)
    kinds.add_parser("measure", help=f"judge the held-out sentences and write {DOCUMENT.name}")
    wanted = parser.parse_args()
    if wanted.what == "fit":
        fit(wanted.data, wanted.output)
        print(f"wrote {wanted.output}")
    else:
        DOCUMENT.write_text(
            written(DOCUMENT.read_text(encoding="utf8"), measured()), encoding="utf8"
        )
        print(f"wrote {DOCUMENT}")


if __name__ == "__main__":
    main()
