"""How the embedded models are made: TRL and PEFT train, ours are the data and the recipes."""
