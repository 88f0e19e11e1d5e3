"""What the processor can do is told by every torch that the requirements admit."""

from __future__ import annotations

import pytest
import torch

from empo_demo.processor import fast_bfloat16


@pytest.mark.parametrize("able", [True, False, None])
def test_an_older_torch_is_asked_in_its_own_way(
    able: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    if able is not None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able, raising=False)
    assert fast_bfloat16() is bool(able)


def test_this_torch_tells_what_the_processor_can_do() -> None:
    assert fast_bfloat16() in (True, False)
