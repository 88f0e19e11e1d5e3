"""Text in, two streams out: what answers the sides of a round.

Requests come in (messages, decoding, seed, contender), events go out, all sides in step. This room
must not know rounds, votes or pages. `protocol` is its contract. `loading` decides and loads:
`planning/` says what is needed, `weights/` reads models and adapters, `assembly/` makes the copies,
each after its trial. `lockstep/` decodes, with `text/` around it. Replies from elsewhere look the
same from outside: `servers/`, `recorded`, `lease`.
"""
