"""Pure functions over texts and numbers; each names the paper or code that defines it.

In come texts, levels and distributions; out come figures. An undefined value is None, never NaN.
Nothing here may load a model, read a setting or know of files, except the lexicon and the counts
that a person names. A new metric is a file here, a row in `evaluation/measure.py`, and a test.
"""
