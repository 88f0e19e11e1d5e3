"""How the embedded dialogue model is trained from nothing, and checked: `train tiny-base`.

In: dialogue corpora. Out: a Llama-shaped folder like `assets/tiny/base`, and its perplexity and
soundness. It never reads a test split.
"""
