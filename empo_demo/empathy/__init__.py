"""What the arena knows about feelings: the small empathetic model (SEM), guidance and safety.

In come the turns of a dialogue, or a reply. Out come a `Reading` (emotions, cause words, valence,
how sure it is), EPITOME's levels, HEF's guidance for a model, and notices (crisis, personal data,
identity, language). It must never know who the contenders are, what was voted, or who asks.
"""
