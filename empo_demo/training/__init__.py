"""Training: preference pairs, SFT, DPO and KTO with TRL, the loop, the SEM, the tiny base.

In come the dialogue files or the votes of a database; out come adapters and models with cards
that say how they were made. A training that was killed goes on from its last whole checkpoint.
This room must never change a model or a contender that is there: each result is a new folder.
"""
