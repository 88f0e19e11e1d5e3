"""The commands: JSON alone on stdout, one line of error, tables for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError, InvalidInput
from empo_demo.evaluation import cli
from empo_demo.settings import ASSETS

app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(cli.evaluate_app, name="evaluate")
app.command("score")(cli.score)
app.command("report")(cli.report)
runner = CliRunner()

LIGHT = ["--metrics", "length,distinct,vad,nidf,safety"]


@pytest.fixture(autouse=True)
def _no_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPO_DATABASE", f"sqlite:///{tmp_path / 'votes.sqlite3'}")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for name, reply in (("base", "Oh."), ("aligned", "That must hurt, I am sorry.")):
        path = tmp_path / f"{name}.jsonl"
        records = [
            {"context": [f"I lost my dog {i}."], "reference": "Oh no!", "response": reply}
            for i in range(5)
        ]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        paths.append(path)
    return paths


def options(files: list[Path]) -> list[str]:
    return [part for file in files for part in ("--predictions", str(file))]


def test_json_is_one_line_and_everything_else_goes_to_stderr(files: list[Path]) -> None:
    result = runner.invoke(app, ["score", *options(files), *LIGHT, "--json"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    scores = json.loads(result.stdout)
    assert list(scores["systems"]) == ["base", "aligned"]
    system = scores["systems"]["base"]
    assert {"n", "words_mean", "distinct", "vad", "nidf_own_counts"} <= set(system)
    assert set(system["distinct"]) >= {"corpus", "per_response", "equal_tokens"}
    assert set(system["distinct"]["corpus"]) == {"1", "2", "3"}
    assert set(system["vad"]["abs_max"]) == {"v", "a", "d"}
    assert {entry["metric"] for entry in scores["paired"]} >= {"length", "vad.v", "nidf_own_counts"}
    assert "Lexicon" in result.stderr


def test_people_get_tables(files: list[Path]) -> None:
    result = runner.invoke(app, ["score", *options(files), *LIGHT], env={"COLUMNS": "200"})
    assert "words per reply" in result.stdout
    assert "aligned - base" in result.stdout
    assert "nan" not in result.stdout.lower()


def test_a_bad_file_or_metric_ends_in_an_error_for_people(files: list[Path]) -> None:
    result = runner.invoke(app, ["score", "--predictions", "absent.csv"])
    assert isinstance(result.exception, DataError)
    result = runner.invoke(app, ["score", *options(files), "--metrics", "lenght"])
    assert isinstance(result.exception, InvalidInput)
    assert "length" in str(result.exception)


def test_a_lexicon_with_wrong_columns_is_named(files: list[Path], tmp_path: Path) -> None:
    lexicon = tmp_path / "wrong.tsv"
    lexicon.write_text("dog\t0.5\n")
    result = runner.invoke(
        app, ["score", *options(files), *LIGHT], env={"EMPO_NRC_VAD": str(lexicon)}
    )
    assert isinstance(result.exception, DataError)
    assert "line 1, has 2 columns" in str(result.exception)


def test_the_report_is_written(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    result = runner.invoke(app, ["report", "-o", str(output), *options(files), *LIGHT])
    assert result.exit_code == 0, result.output
    assert " | base | aligned |" in output.read_text()
    missing = tmp_path / "no" / "report.md"
    result = runner.invoke(app, ["report", "-o", str(missing), *options(files), *LIGHT])
    assert isinstance(result.exception, DataError)


def test_word_counts_are_made_and_used(files: list[Path], tmp_path: Path) -> None:
    data, counts = tmp_path / "data.jsonl", tmp_path / "counts.tsv.gz"
    record = {"utterances": [{"content": "Oh ."}, {"content": "."}]}
    data.write_text(json.dumps(record) + "\n")
    arguments = ["evaluate", "word-counts", "--data", str(data), "--output", str(counts)]
    assert runner.invoke(app, arguments).exit_code == 0
    result = runner.invoke(
        app,
        ["score", *options(files[:1]), "--metrics", "nidf", "--nidf-corpus", str(counts), "--json"],
    )
    assert "own word counts" not in result.stderr
    without = runner.invoke(app, ["score", *options(files[:1]), "--metrics", "nidf", "--json"])
    assert "nidf_own_counts" in without.stdout
    assert "NIDF is from our own word counts; --nidf-corpus takes the paper's." in without.stderr
    # "Oh." is the rarest token (1) and the commonest (0).
    assert json.loads(result.stdout)["systems"]["base"]["nidf"] == pytest.approx(0.5)


@pytest.mark.slow
def test_the_real_engine_answers_dialogues(data_dir: Path, tmp_path: Path) -> None:
    base = ASSETS / "tiny" / "base"
    roster, output = tmp_path / "roster.toml", tmp_path / "out.jsonl"
    entry = '[[contenders]]\nid = "{id}"\nbase = "{base}"\n'
    roster.write_text(
        'name = "test"\nquantization = "none"\n[decoding]\nmax_new_tokens = 8\n'
        + entry.format(id="one", base=base)
        + entry.format(id="two", base=base)
    )
    data = data_dir / "empathetic_dialogues.valid.jsonl.gz"
    arguments = ["--contender", "one", "--data", str(data), "--output", str(output)]
    result = runner.invoke(
        app, ["evaluate", "generate", *arguments, "--limit", "3"], env={"EMPO_PRESET": str(roster)}
    )
    assert result.exit_code == 0, result.output
    rows = read_predictions(output).rows
    assert len(rows) == 3
    assert all(row.response for row in rows)
    assert all(row.reference and row.user for row in rows)
