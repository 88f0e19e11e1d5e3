"""Text in, two streams out: what answers the sides of a round.

Requests come in (messages, decoding, seed, contender). Events go out (text, end, failure), all
sides in step. Local weights decode in one batch with a shared KV cache. Servers, leased GPUs and
files of recorded replies look the same from outside. This room must not know rounds, votes or
pages.
"""
