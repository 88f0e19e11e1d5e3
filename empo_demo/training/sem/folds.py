"""One split of EmpatheticDialogues' validation dialogues into three folds, for all heads alike.

EmoCause annotates situations of these dialogues, so a figure may only be reported on a dialogue
that no head has seen in training or tuning. The fold depends on the `conv_id` alone.
"""

from __future__ import annotations

import hashlib

CAUSE_TRAINING = 0
"""May train the SEM's cause head."""
TUNING = 1
"""Calibration and the choice of hyperparameters."""
REPORTING = 2
"""Only ever reported on."""


def fold_of(conv_id: str) -> int:
    """The fold, 0 to 2, of the dialogue `conv_id`: SHA-256 of the id, modulo 3."""
    return int(hashlib.sha256(conv_id.encode()).hexdigest(), 16) % 3
