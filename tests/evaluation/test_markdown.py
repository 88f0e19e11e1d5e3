"""`assets/results.md` is what the command writes from the stored figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.errors import DataError
from empo_demo.evaluation.markdown import MARKDOWN, read_studies, table


def test_the_page_beside_the_results_is_what_the_command_writes(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    done = CliRunner().invoke(app, ["report", "--markdown", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf8") == MARKDOWN.read_text(encoding="utf8"), (
        "the figures changed: run python -m empo_demo report --markdown"
    )


def test_every_table_has_as_many_cells_in_each_row() -> None:
    lines = MARKDOWN.read_text(encoding="utf8").splitlines()
    for one, other in itertools.pairwise(lines):
        if one.startswith("|") and other.startswith("|"):
            assert one.count("|") == other.count("|"), other
    assert "|---|" in table(("a|b", "c"), [("1", "2")])[1] and "a&#124;b" in table(("a|b",), [])[0]


def test_a_study_with_a_torn_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('[{"columns": ["a", "b"], "rows": [["1"]]}]')
    with pytest.raises(DataError, match="not a file of studies"):
        read_studies(tmp_path / "s.json")
