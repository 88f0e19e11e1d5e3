"""Text in, two streams out. Knows nothing of rounds, votes or pages."""
