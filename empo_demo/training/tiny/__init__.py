"""The tiny dialogue model: its corpus, its start, its training from scratch, and its check."""
