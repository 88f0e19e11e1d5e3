"""Pure functions over texts and numbers; each names the paper or code that defines it.

Texts, levels and distributions come in, figures go out. An undefined value is None, never NaN.
This room must not load a model or read a setting, and knows no files except a lexicon and counts
that a person names. A new metric is a file here, a row in `evaluation/measure.py`, and a test.
"""
