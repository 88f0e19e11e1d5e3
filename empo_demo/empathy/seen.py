"""Which dialogues the SEM has seen, and so which ones may measure it or what it guides.

EmoCause annotates situations of ED-valid, so all heads share one split of its dialogues: whatever
is chosen for a fold's figures (share, temperature, marks) is chosen on the other folds. The
encoder sees no dialogue of ED-valid at all, and not those of ED-train that `kept_back` names.
"""

from __future__ import annotations

import hashlib

FOLDS = 3
REPORTING = 2
"""The fold of ED-valid that `python -m recipes.studies hef` uses."""
BLOCK = 400
"""The number of neighbouring tasks of EmpatheticDialogues in one block; see `block`."""
KEPT_BACK = 10
"""One of this many tasks of ED-train is kept back."""


def fold_of(conv_id: str) -> int:
    """The fold, 0 to 2, of the dialogue `conv_id`: SHA-256 of the id, modulo 3."""
    return number_of(conv_id) % FOLDS


def block(conv_id: str) -> str:
    """The block of neighbouring tasks of a dialogue, or its id where it names no task.

    A writer did many tasks in a row and reads alike in all of them; the data does not name the
    writers, but the tasks (`hit:N_conv:M`) are numbered in the order in which they were done.
    """
    task = conv_id.split("_")[0].removeprefix("hit:")
    return str(int(task) // BLOCK) if task.isdigit() else conv_id


def kept_back(conv_id: str) -> bool:
    """Whether a dialogue of ED-train is kept from training, with all of its task (`hit:N`)."""
    return number_of(conv_id.split("_")[0]) % KEPT_BACK == 0


def number_of(text: str) -> int:
    """The SHA-256 of `text` as a number, which deals texts out evenly and always alike."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
