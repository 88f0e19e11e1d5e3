"""A wrong setting is one line that names the variable, what it holds and what it may hold."""

from __future__ import annotations

import pytest

from empo_demo.errors import SettingsError
from empo_demo.settings import load_settings, unknown_variables


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("EMPO_QUANTIZATION", "q4", "nf4, int8 or none"),
        ("EMPO_DEVICE", "gpu", "cuda"),
        ("EMPO_MAX_CONCURRENT_ROUNDS", "many", "a number from 1 to 256"),
        ("EMPO_MAX_CONCURRENT_ROUNDS", "0", "a number from 1 to 256"),
        ("EMPO_EXPOSURE", "some", "all, after-vote or randomised"),
        ("EMPO_DATABASE", "votes.txt", "a SQLAlchemy URL"),
        ("EMPO_NRC_VAD", "/nowhere/lexicon.txt", "the path of your NRC-VAD lexicon file"),
    ],
)
def test_a_wrong_value_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert variable in message and repr(value) in message and allowed in message
    assert "\n" not in message


def test_flags_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPO_QUANTIZATION", "int8")
    assert load_settings(quantization="none").quantization == "none"
    assert load_settings(quantization=None).quantization == "int8"


def test_a_misspelt_variable_is_pointed_out_with_the_right_one() -> None:
    (line,) = unknown_variables({"EMPO_QUANTISATION": "nf4", "HOME": "/"})
    assert "EMPO_QUANTISATION" in line and "EMPO_QUANTIZATION" in line
