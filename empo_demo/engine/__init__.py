"""Text in, two streams out: what answers the sides of a round.

Requests come in (messages, decoding, seed, contender), events go out, all sides in step. This room
must not know rounds, votes or pages. `protocol` is its contract. Decoding: `local`, `batch`,
`forward`, `fused`, `kv_cache`, `attention`, `lora`, `products`, `sampling`. Loading: `loading`,
`adapters`, `merging`, `copies`. What fits on a machine: `budget`, `fits`, `plan`, `shapes`. Replies
from elsewhere, which look the same from outside: `remote`, `recorded`, `lease`.
"""
