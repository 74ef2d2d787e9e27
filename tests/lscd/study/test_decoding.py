"""The study of decoding speed: its rows on a small model, and its stored table."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.cpu.bitmap import CpuBitmap
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.model import Decoder
from lscd.decoding import kernel_of
from lscd.study import decoding
from lscd.study.decoding import COLUMNS, Case, cases, decoder_of, time_case, weights
from perfmodel.catalog import load_table
from tests.kernels_numba.decoder.models import LLAMA, weights_of


@pytest.fixture(scope="module")
def base() -> Decoder:
    return Decoder(DecoderConfig.from_dict(LLAMA), weights_of(LLAMA))


@pytest.mark.parametrize("kernel", ["numpy-fp32", "cpu-dense16", "cpu-bitmap", "cpu-bitmap-bf16", "cpu-panel-csr"])
def test_each_kernel_gets_its_weights(base: Decoder, kernel: str) -> None:
    found = decoder_of(base, kernel, 0.5)
    assert kernel_of(found) == kernel
    one = found.weights["model.layers.0.mlp.gate_up_proj.weight"]
    if isinstance(one, CpuBitmap):
        assert 1 - one.nnz / (112 * 32) == pytest.approx(0.5, abs=0.01)
    assert "model.layers.0.mlp.up_proj.weight" in base.weights, "the source stays"


def test_a_row_is_what_its_case_asks(base: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STEPS", 6)
    row = time_case(base, Case("numpy-fp32", 0.0, 2, 8))
    assert set(row) | {"gpu", "model", "source"} == set(COLUMNS)
    assert (row["batch"], row["context"], row["steps"], row["step_bytes"]) == (2, 15, 6, base.step_bytes)
    assert row["step_ms"] > 0


def test_the_stored_table_has_every_case() -> None:
    table = load_table("measured/smollm2/decoding.csv")
    wanted = [(c.kernel, c.sparsity, c.batch, c.prompt) for pair in weights() for c in cases(*pair)]
    for _, part in table.groupby("gpu"):
        prompts = part["context"] - decoding.UNCOUNTED - decoding.STEPS // 2
        assert list(zip(part["kernel"], part["sparsity"], part["batch"], prompts, strict=True)) == wanted
    assert set(table["gpu"]) == {"xeon-emerald-rapids-2c@1", "xeon-emerald-rapids-2c@2"}


def test_stored_bytes_are_those_of_the_formats() -> None:
    """134,479,872 weights and 60 norms; a bitmap has a bit for each and two bytes for those that are not zero."""
    table = load_table("measured/smollm2/decoding.csv")
    weights_in_all, norms = 134_479_872, 60 * 576 * 4
    found = table.groupby(["kernel", "sparsity"])["step_bytes"].agg(["min", "max"])
    assert (found["min"] == found["max"]).all()
    assert found.loc[("numpy-fp32", 0.0), "min"] == 4 * weights_in_all + norms
    assert found.loc[("cpu-dense16", 0.0), "min"] == 2 * weights_in_all + norms
    head, layers = 49152 * 576, weights_in_all - 49152 * 576
    bits = weights_in_all / 8 + 2 * (head + 0.4 * layers) + norms
    assert found.loc[("cpu-bitmap", 0.6), "min"] == pytest.approx(bits, rel=0.01)


def test_stored_times_say_what_zeros_gain() -> None:
    """At batch 1 more zeros are faster, and 60 % beat the dense model in every form we have; both thread counts."""
    table = load_table("measured/smollm2/decoding.csv").query("batch == 1 and context < 100")
    for _, part in table.groupby("gpu"):
        steps = part.set_index(["kernel", "sparsity"])["step_ms"]
        bitmap = steps["cpu-bitmap"]
        assert bitmap[0.9] < bitmap[0.6] < bitmap[0.0]
        assert np.all(steps["cpu-bitmap"][0.6] < steps.xs(0.0, level="sparsity"))
