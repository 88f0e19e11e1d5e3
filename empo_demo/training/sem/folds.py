"""Which dialogues the SEM's figures are measured on: folds by conversation, for all heads alike.

EmoCause annotates situations of ED-valid, so all heads share one split of its dialogues: whatever
is chosen for a fold's figures (share, temperature, marks) is chosen on the other folds. The
encoder sees no dialogue of ED-valid at all, and not those of ED-train that `kept_back` names.
"""

from __future__ import annotations

import hashlib

FOLDS = 3
REPORTING = 2
"""The fold of ED-valid that `evaluate hef` uses."""
KEPT_BACK = 10
"""One task of ED-train in so many is kept back."""


def fold_of(conv_id: str) -> int:
    """The fold, 0 to 2, of the dialogue `conv_id`: SHA-256 of the id, modulo 3."""
    return _number(conv_id) % FOLDS


def kept_back(conv_id: str) -> bool:
    """Whether a dialogue of ED-train is kept from training, with all of its task (`hit:N`)."""
    return _number(conv_id.split("_")[0]) % KEPT_BACK == 0


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
