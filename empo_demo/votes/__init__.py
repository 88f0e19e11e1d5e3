"""What was said and voted, kept: rounds, replies, votes, and what is forgotten.

Rounds come in before they are shown, then replies, votes and ratings; also records from elsewhere
(`record` checks each). Rounds, records and counts go out. The database is the truth.
`verdicts` is the table of what a voter may say; `reasons` are the reasons to leave a vote out.
This room must not know pages, models, or the token of a voter in clear.
"""
