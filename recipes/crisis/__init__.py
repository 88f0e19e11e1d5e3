"""How the classifier of crisis language is fitted and measured: see `__main__`."""
