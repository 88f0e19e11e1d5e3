"""Decoding: the rows of all rounds in one batch, token by token, in step."""
