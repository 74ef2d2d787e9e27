"""The rivals multiply what they say: PyTorch's FP8 product on the CPU, and stand-ins for the two that need a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels_numba.bench import rivals
from kernels_numba.bench.product import Gpu
from kernels_numba.bench.timing import AbsentError
from tests.kernels_numba.bench.emulated import Emulated, matrix, session

GPU = Gpu("h100", "sm_90", 132, 1000, 3e12)
torch = pytest.importorskip("torch")


def int4_product(x: Any, codes: Any, group: int, table: Any) -> Any:
    """What ``_weight_int4pack_mm`` computes: (code - 8) * scale + zero of each group; the high half of a byte first."""
    whole = torch.stack((codes >> 4, codes & 15), dim=2).flatten(1).double()
    scales, zeros = (part.t().double().repeat_interleave(group, dim=1) for part in table.unbind(2))
    return (x.double() @ ((whole - 8) * scales + zeros).t()).to(torch.bfloat16)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    found: Any = Emulated()
    found.torch = torch
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(torch, "_convert_weight_to_int4pack", lambda codes, tiles: codes)
    monkeypatch.setattr(torch, "_weight_int4pack_mm", int4_product)
    monkeypatch.setattr(torch, "_cslt_compress", lambda pruned: pruned)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", lambda a, x: (a.double() @ x.double()).half())
    return found


@pytest.mark.parametrize(("family", "bytes_each"), [("fp8", 1.0), ("int4", 0.5), ("two-four", 2.0)])
def test_a_rival_is_right_and_a_changed_weight_shows(library: Emulated, family: str, bytes_each: float) -> None:
    given = matrix(256, 256)
    row = session(library, GPU).measure(rivals.prepare(family, library, GPU, given)(8))[0]
    assert (row.kernel, row.m, row.k, row.n) == (family, 256, 256, 8)
    assert row.sparsity == (0.5 if family == "two-four" else 0.0)
    assert row.activations == ("quantised" if family == "fp8" else "fp16")
    rival = rivals.RIVALS[family](torch, given)
    assert rival.weight_bytes == pytest.approx(bytes_each * 256 * 256, rel=0.07)  # scales beside
    rival.exact[3, 7] += 1
    trial = rivals._trial(family, rival, [rival.weights], given, rivals._tokens(torch, given, 8))
    with pytest.raises(ArithmeticError, match="elements are wrong"):
        session(library, GPU).measure([trial])


def test_two_of_four_are_kept(library: Emulated) -> None:
    given = matrix(128, 64)
    pruned = rivals.TwoFour(torch, given).exact
    kept = pruned.reshape(-1, 4) != 0
    assert (kept.sum(axis=1) == 2).all()
    magnitudes = np.abs(given.slab.reshape(-1, 4).astype(np.float64))
    assert (np.where(kept, magnitudes, np.inf).min(axis=1) >= np.where(kept, 0, magnitudes).max(axis=1)).all()


def test_what_is_not_there_is_absent_in_its_own_words(library: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(pruned: Any) -> Any:
        raise RuntimeError("cuSPARSELt not supported on your machine.\nand more")

    monkeypatch.setattr(torch, "_cslt_compress", refuses)
    with pytest.raises(AbsentError, match=r"^cuSPARSELt not supported on your machine\.$"):
        rivals.prepare("two-four", library, GPU, matrix())
    with pytest.raises(AbsentError, match="fp8 needs PyTorch"):
        rivals.prepare("fp8", Emulated(), GPU, matrix())


def test_a_call_that_writes_nothing_is_wrong() -> None:
    out = rivals.Output()
    out.tensor = torch.zeros(2, 3)
    assert out.host().shape == (3, 2)
    out[...] = np.nan
    with pytest.raises(ArithmeticError, match="no output was written"):
        out.host()
