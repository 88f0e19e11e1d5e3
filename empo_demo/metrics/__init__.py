"""Pure functions over texts and numbers; each names the paper or code that defines it.

Nothing here loads a model, reads a setting or knows of files, except the lexicon that a person
names. An undefined value is None, never NaN.
"""
