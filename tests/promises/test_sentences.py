"""Every sentence of the consent text, and each claim about security, has a test that names it.

`pytest.mark.keeps` names the sentence that a test is for. A sentence without a test is an error,
and so is a test for a sentence that is no longer there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from empo_demo.votes import consent
from empo_demo.votes.models import Base
from tests.conftest import REPOSITORY

README = " ".join(
    word
    for name in ("README.md", "SECURITY.md")
    for word in (REPOSITORY / name).read_text(encoding="utf8").split()
)
CLAIMS = (
    "not blind, not stored.",
    "**Data**: what is stored about you",
    "Blindness protects honest voters only",
    "Attention checks, limits and clustered intervals protect the board.",
    "hostile files, servers, pages and floods refused",
)
"""What the README and SECURITY.md claim for security and privacy, in their words."""


def functions(file: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(file.read_text(encoding="utf8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


KEPT = {
    ast.literal_eval(mark.args[0])
    for file in Path(__file__).parent.glob("test_*.py")
    for function in functions(file)
    for mark in function.decorator_list
    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.keeps"
}
"""How the sentences begin that the tests of this folder are for."""


def sentences(whole: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])", " ".join(whole.split()))


def test_each_sentence_has_one_test_in_both_languages() -> None:
    told = sentences(consent.TEXT)
    for sentence in told:
        assert [start for start in KEPT if sentence.startswith(start)], sentence
    for start in KEPT:
        assert [one for one in told if one.startswith(start)] or start in README, start
    for claim in CLAIMS:
        assert claim in README and claim in KEPT, claim
    assert len(sentences(consent.GERMAN)) == len(told)
    assert {consent.version_of(one) for one in consent.TEXTS.values()} == consent.VERSIONS


def test_each_line_of_the_privacy_document_names_tests_that_exist() -> None:
    document = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf8")
    lines = [line for line in document.splitlines() if line.startswith("| ")]
    lines = [line for line in lines if not line.startswith(("| what |", "| ---"))]
    assert len(lines) >= 12
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line.split("|")[-2])
        assert named, f"no test is named for: {line}"
        for file, name in named:
            assert name in {one.name for one in functions(REPOSITORY / file)}, (
                f"{file} has no {name}"
            )


def test_the_privacy_document_names_every_table() -> None:
    document = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf8")
    for table in Base.metadata.sorted_tables:
        assert f"`{table.name}`" in document, table.name
