"""Names are forgiving, and unknown ones suggest the nearest."""

from __future__ import annotations

import pytest

from perfmodel.catalog import load_gpu, load_model, load_table


def test_names_are_forgiving_and_unknown_ones_suggest_the_nearest() -> None:
    assert load_gpu("A100_80GB") is load_gpu("a100-80gb")
    with pytest.raises(
        ValueError, match=r"unknown GPU 'a100-80': did you mean a100-80gb or .*\? Known are a10, a100-40gb, .*v100"
    ):
        load_gpu("a100-80")
    with pytest.raises(ValueError, match=r"unknown model 'llama2-7b': did you mean llama-2-7b\?"):
        load_model("llama2-7b")
    with pytest.raises(ValueError, match=r"unknown model 'zzz': Known are baichuan2-7b"):
        load_model("zzz")
    with pytest.raises(
        ValueError, match=r"unknown table 'published/kernel_a10\.csv': did you mean published/kernel_a100"
    ):
        load_table("published/kernel_a10.csv")
