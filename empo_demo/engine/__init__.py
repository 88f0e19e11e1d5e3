"""Text in, two streams out: what answers the sides of a round.

In come requests (messages, decoding, seed, contender), out come events (text, end, failure) of all
sides in step. Local weights decode in one batch with a shared KV cache; servers, leased GPUs and
files of recorded replies look the same from outside. Knows nothing of rounds, votes or pages.
"""
