"""What was said and voted, kept: rounds, replies, votes, and what is forgotten.

In come rounds before they are shown, their replies, votes and ratings, backups and records from
elsewhere (each checked by `record`). Out go rounds, counts and backups. The database is the truth;
`verdicts` is the table of what a voter may say, `reasons` why a vote is left out.
This room must never know pages, models, or the token of a voter in clear.
"""
