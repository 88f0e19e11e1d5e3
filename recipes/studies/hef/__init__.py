"""Whether HEF's guidance helps a model's replies: `python -m recipes.studies hef`.

Contenders, dialogues and the SEM come in. Each condition's replies and their paired differences go
out. This room must never judge a reply by what gave the guidance: `reply_judge` has no part in it.
"""
