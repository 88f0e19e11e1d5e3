"""One round, from the first word to the vote; and comparisons that are neither blind nor stored.

In come a voter's token, a dialogue and a text, then a verdict. Out come events of the sides "a"
and "b", and after the vote a receipt that says who was who. `arena.py` is the use case; the other
files are its parts, in the order of a round: guards, opening, jobs, streaming, frames, live,
rounds. The room must never know of pages, of HTTP or of tensors, and names no side before its vote.
"""
