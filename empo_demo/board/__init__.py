"""What the votes say: ranking, standing, ratings, agreement, attention, and their figures.

Ballots come in: votes without their texts, from the database or a file. Win rates, strengths,
effects and tables go out, each with an interval that is clustered by voter, and the votes that were
left out, by reason. This room must never hide a vote silently, and never see a dialogue.
"""
