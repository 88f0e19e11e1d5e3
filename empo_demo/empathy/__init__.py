"""What the arena knows about feelings: the small empathetic model (SEM), guidance and safety.

The turns of a dialogue, or a reply, come in. A `Reading` goes out (emotions, cause words, valence,
certainty), and EPITOME's levels, HEF's guidance for a model, and notices (crisis, personal data,
identity, language). This room must not know the contenders, the votes, or who asks.
"""
