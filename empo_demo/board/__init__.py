"""What the votes say: ranking, standing, ratings, agreement, attention, and their figures.

In come ballots: votes without their texts, from the database or a file. Out go win rates,
strengths, effects and tables, each with an interval that counts a voter as one, and what was left
out by reason. This room must never hide a vote silently, and never see a dialogue.
"""
