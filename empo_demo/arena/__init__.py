"""One round, from the first word to the vote; and comparisons that are neither blind nor stored.

A voter's token, a dialogue and a text come in, and later a verdict. Events of the sides "a" and "b"
go out, and after the vote a receipt that says who was who. `arena` is the use case, `playground`
answers outside a round. The other files are its parts, in the order of a round: guards, opening,
jobs, streaming, frames, live, rounds. This room must not know pages, HTTP or tensors, and names no
side before its vote.
"""
