"""How the small empathetic model (SEM) is trained, chosen and measured: `python -m recipes.sem`.

In: EmpatheticDialogues, GoEmotions, EmoBank, EmoCause, EPITOME and a pretrained encoder. Out: a
folder like `assets/sem` with weights, figures and a card. `tune` trains the encoder, with or
without `teachers`; `heads`, `affect` and `choice` fit what reads it; `fit` is the whole of it. It
never reads a test split, and what a figure is measured on has no part in what is chosen for it
(`folds`).
"""
