"""Whether HEF's guidance helps a model's replies: `evaluate hef`.

In: contenders, dialogues, the SEM. Out: each condition's replies and their paired differences.
What judges the replies (`reply_judge`) has no part in the guidance.
"""
