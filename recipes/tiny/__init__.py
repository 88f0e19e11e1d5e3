"""How the embedded dialogue model is trained from nothing, and checked: `python -m recipes.tiny`.

Dialogue corpora come in. A Llama-shaped folder like `assets/tiny/base` goes out, with figures of
perplexity and soundness. This room must never read a test split.
"""
