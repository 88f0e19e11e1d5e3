"""One round, from the first word to the vote; and comparisons that are neither blind nor stored.

A voter's token, a dialogue and a text come in, and later a verdict. Frames go out,
each with what the sides "a" and "b" have said so far, and after the vote a receipt that says who
was who. `arena` is the use case. The other files are its parts, in the order of a round: guards,
opening, loaded_models, jobs, streaming, frames, live, rounds. This room must not know pages, HTTP
or tensors, and names no side before its vote.
"""
