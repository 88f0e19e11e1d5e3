"""Training: preference pairs, SFT, DPO and KTO with TRL, the loop, the SEM, the tiny base.

Dialogue files or the votes of a database come in. Adapters and models go out, with cards that say
how they were made. A training that was killed continues from its last complete checkpoint. This
room must never change an existing model or contender: each result is a new folder.
"""
