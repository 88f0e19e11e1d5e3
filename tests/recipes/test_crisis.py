"""The document gives the figures of the shipped detection, and nothing that measures was learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse as sparse

from recipes.crisis import fit, measure


def test_nothing_that_measures_was_learnt() -> None:
    rows = map(json.loads, fit.SENTENCES.read_text(encoding="utf8").splitlines())
    measuring = [fit.runs(row["text"]) for row in rows if row["half"] == "test"]
    learnt = fit.sentences()
    assert len(learnt) > 3500 and sum(one.crisis for one in learnt) > 1500
    assert not any(fit.is_like(fit.runs(one.text), measuring) for one in learnt)


def test_a_sentence_like_one_that_measures_is_left_out() -> None:
    measuring = [fit.runs("I went to the lake, and it was cold.")]
    assert fit.is_like(fit.runs("i went to the LAKE and it was warm"), measuring)
    assert not fit.is_like(fit.runs("I went to the sea and it was warm"), measuring)


@pytest.mark.slow
def test_the_document_gives_the_figures_of_the_shipped_detection() -> None:
    """Each count, up to one sentence on the edge on another processor."""
    document = measure.DOCUMENT.read_text(encoding="utf8")
    lines = document.split(measure.START)[1].split(measure.END)[0].strip().splitlines()[2:]
    rows = measure.measured()
    assert len(measure.held_out()) == 200 - len(measure.SEEN)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        label, n, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert label.startswith("crisis" if row.crisis else "harmless") and int(n) == row.n
        for cell, hits in zip(cells, (row.sem, row.words, row.patterns), strict=True):
            assert abs(float(cell.split()[0]) * row.n - hits) <= 1.5, line


def test_the_table_is_written_between_its_marks_with_intervals() -> None:
    row = measure.Row("past_recovered", False, 10, 1, 2, 0)
    text = measure.written(f"a\n{measure.START}\nold\n{measure.END}\nz", [row])
    assert text.startswith("a\n") and text.endswith("\nz") and "old" not in text
    assert "| harmless: past, recovered | 10 | 0.10 [0.02, 0.40] | 0.20 [0.06, 0.51] |" in text


def test_the_regression_learns_and_its_penalty_holds_it_back() -> None:
    pieces = sparse.csr_matrix(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32))
    y = np.array([1.0, 1.0, 0.0, 0.0])
    w, v, bias = fit.regression(pieces, np.zeros((4, 1), np.float32), y, np.ones(4))
    assert w[0] > 0 > w[1] and v[0] == pytest.approx(0) and bias == pytest.approx(0, abs=1e-3)
    assert abs(w).max() < 5
