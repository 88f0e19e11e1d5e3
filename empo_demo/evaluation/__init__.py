"""The paper's evaluation: generate, score, compare, check retention, report.

Dialogues, files of predictions and this installation's votes come in. Figures with intervals,
paired comparisons, `assets/results.json`, `assets/results.md` and the report page go out.
`metrics/` defines the figures. `measure.METRICS` is the one table of all that is known of each.
This room must never write a text of the data sets into a file that is shipped.
"""
