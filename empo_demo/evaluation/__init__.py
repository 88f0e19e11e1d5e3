"""The paper's evaluation: generate, score, compare, check retention, report.

`metrics/` defines the figures; this package reads files, runs models and writes results.
"""
