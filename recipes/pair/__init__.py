"""How the adapters of the pair that everybody meets were made: `assets/smollm2/sft` and `aligned`.

`settings` holds every figure of it, `__main__` the steps. All the work is that of the product's own
commands, `preferences build`, `train sft` and `train dpo`; nothing is trained by other code.
"""
