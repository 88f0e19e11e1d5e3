"""EmPO Arena: compare a base and an aligned empathetic language model, see why, and vote."""

__version__ = "0.1.0"
