"""Who takes part: weights, adapter and prompt strategy, and how often each pair is drawn.

The settings, a preset or a TOML file, and the SEM's reading of a turn come in. The roster with a
revision per contender goes out, and the messages of each side. A new prompt strategy is an entry in
`strategies`. The terminal's `contenders` is here too. This room may use the engine
and the SEM's wording; it must not know rounds, votes or pages.
"""
