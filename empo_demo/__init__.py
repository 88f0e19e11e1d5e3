"""EmPO Arena: compare a base and an aligned empathetic language model, see why, and vote.

`ARCHITECTURE.md`, beside this package in the repository, is the map: the rooms from the top one
down, the life of a round, and the decisions that shape the code.
"""

__version__ = "0.2.0"
