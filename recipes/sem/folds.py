"""Which dialogues the SEM's figures are measured on: folds by conversation, for all heads alike.

EmoCause annotates situations of ED-valid, so all heads share one split of its dialogues: whatever
is chosen for a fold's figures (share, temperature, marks) is chosen on the other folds. The
encoder sees no dialogue of ED-valid at all, and not those of ED-train that `kept_back` names.
"""

from __future__ import annotations

import hashlib

FOLDS = 3
REPORTING = 2
"""The fold of ED-valid that `python -m recipes.studies hef` uses."""
PARTS = 12
"""Parts of the blocks: four make an outer fold, one of the other eight chooses for it."""
BLOCK = 400
"""The number of neighbouring tasks of EmpatheticDialogues in one block; see `block`."""
KEPT_BACK = 10
"""One of this many tasks of ED-train is kept back."""


def fold_of(conv_id: str) -> int:
    """The fold, 0 to 2, of the dialogue `conv_id`: SHA-256 of the id, modulo 3."""
    return _number(conv_id) % FOLDS


def outer_fold(conv_id: str) -> int:
    """The fold, 0 to 2, of a dialogue where emotions are cross-validated: by its block of tasks.

    All dialogues of `BLOCK` neighbouring tasks share a fold, so that those of one writer do.
    """
    return _part(conv_id) % FOLDS


def half(conv_id: str) -> int:
    """0 or 1: the half of the dialogues that one of the two teachers is trained on, by blocks."""
    return _part(conv_id) % 2


def tunes(conv_id: str, fold: int) -> bool:
    """Whether the dialogue is kept from training to choose for the outer fold `fold` (1 in 12)."""
    return _part(conv_id) == (fold + 1) % PARTS


def _part(conv_id: str) -> int:
    return int(block(conv_id)) % PARTS if block(conv_id).isdigit() else _number(conv_id) % PARTS


def block(conv_id: str) -> str:
    """The block of neighbouring tasks of a dialogue, or its id where it names no task.

    A writer did many tasks in a row and reads alike in all of them; the data does not name the
    writers, but the tasks (`hit:N_conv:M`) are numbered in the order in which they were done.
    """
    task = conv_id.split("_")[0].removeprefix("hit:")
    return str(int(task) // BLOCK) if task.isdigit() else conv_id


def kept_back(conv_id: str) -> bool:
    """Whether a dialogue of ED-train is kept from training, with all of its task (`hit:N`)."""
    return _number(conv_id.split("_")[0]) % KEPT_BACK == 0


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
