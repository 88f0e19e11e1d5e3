"""The paper's evaluation: generate, score, compare, check retention, report.

In come dialogues, files of predictions and this installation's votes. Out go figures with
intervals, paired comparisons, `assets/results.json`, `assets/results.md` and the report page.
`metrics/` defines the figures; `measure.METRICS` is the one table of what is known of each.
This room must never write a text of the data sets into what is shipped.
"""
