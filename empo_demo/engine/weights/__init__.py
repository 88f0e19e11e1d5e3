"""Tensors, adapters and downloads: one copy of the weights, and what it can share."""
