"""The use case: open a round, stream it, take the vote, reveal, go on.

Imports neither gradio nor torch. Every method validates as if a stranger with curl had called it,
because one can: the page holds only a round id and the voter's token, and passes both.
"""
