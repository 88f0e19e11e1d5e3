"""How everything in `assets/` was made and measured. Nothing in the package imports this."""
