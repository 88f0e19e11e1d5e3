"""Who takes part: weights, adapter and prompt strategy, and how often each pair is drawn.

In come the settings, a preset or a TOML file, and the SEM's reading of a turn; out go the roster
with a revision per contender, and the messages of each side. A new prompt strategy is an entry in
`strategies`. The terminal's `contenders` and `adapter` live here too. It may use the engine and
the SEM's wording; it never knows rounds, votes or pages.
"""
