"""Revisions: a short stable hash of everything that a contender's replies depend on.

Two contenders with the same revision give the same distribution of replies to the same messages
and decoding. Hub models count by their id, local ones by their files. Imports no model.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from empo_demo.contenders.strategies import STRATEGIES
from empo_demo.fingerprint import fingerprint
from empo_demo.smollm2.package import fingerprint_of

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster


def revision(contender: Contender, roster: Roster) -> str:
    """12 hexadecimal digits over model, adapter, strategy, prompt text and quantisation.

    It includes the strategy's own texts. For a guided contender it includes HEF's top k and the
    name of the SEM; the revision of the SEM is stored with each reading.
    """
    strategy = STRATEGIES[contender.strategy]
    parts: dict[str, object] = {
        "base": fingerprint_of(contender.base),
        "adapter": fingerprint(contender.adapter),
        "predictions": fingerprint(contender.predictions),
        "strategy": contender.strategy,
        "prompt": roster.system_prompt,
        "quantization": roster.quantization,
    }
    wording = strategy.wording(tiny=roster.compact_hints)
    if wording:
        parts["guidance"] = wording
    if strategy.guided:
        parts["top_k"] = 1 if roster.compact_hints else roster.hef_top_k
        parts["sem"] = roster.sem
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
