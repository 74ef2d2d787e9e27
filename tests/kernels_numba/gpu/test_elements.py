"""bfloat16 on every GPU kernel but those of codes: machine code of other opcodes only, right products, bugs caught."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels_numba.check import FAMILIES, machine_code_faults
from kernels_numba.formats import Dense, Element, EncodedWeight, encode_bitmap, encode_csr, encode_tiled_csl
from kernels_numba.formats.encoded import narrowed
from kernels_numba.gpu import variants
from kernels_numba.gpu.compile import Variant, compile_kernel, compile_ptx, runs_on
from kernels_numba.gpu.decoders import OF_CODES
from kernels_numba.gpu.elements import in_element
from kernels_numba.gpu.emulate import emulate
from kernels_numba.ptx_emulator import PtxError
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm

BFLOAT16 = Element.BFLOAT16
ENCODERS = {
    name: encode for family in FAMILIES.values() for name, encode in family.formats.items() if name not in OF_CODES
}
Encoder = Callable[..., EncodedWeight]


def problem(encode: Encoder, m: int = 40, k: int = 130, n: int = 16, scale: float = 1.0) -> tuple[Any, NDArray[Any]]:
    """Half-empty bfloat16 weights and activations."""
    rng = np.random.default_rng(8)
    a = rng.standard_normal((m, k)) * scale
    a[rng.random((m, k)) < 0.5] = 0
    return encode(narrowed(a, BFLOAT16), element=BFLOAT16), narrowed(rng.standard_normal((k, n)), BFLOAT16)


# The first variant of each kernel that has a form for bfloat16.
FIRST = {
    brain.kernel: replace(brain, element=Element.FLOAT16)
    for brain in reversed(variants.all_variants(BFLOAT16).values())
}


@pytest.mark.parametrize(
    ("variant", "arch"), [(v, arch) for v in FIRST.values() for arch in ("sm_80", "sm_90") if runs_on(v, arch)]
)
def test_machine_code_differs_in_the_opcodes_of_the_type_only(variant: Variant, arch: str) -> None:
    half, brain = compile_kernel(variant, arch), compile_kernel(replace(variant, element=BFLOAT16), arch)
    assert machine_code_faults(brain) == []
    assert len(half.instructions) == len(brain.instructions)
    assert half.main_loop.total() == brain.main_loop.total()
    typed = ("HMMA", "F2FP")
    if variant.kernel == "csr":
        # An activation is widened by one instruction in both, and the assembler moves by another unit at times.
        typed = ("F2FP", "HADD2.F32", "LOP3", "IMAD", "SHF", "MOV", "IADD3.X")
        assert half.main_loop["convert"] == brain.main_loop["integer"] - half.main_loop["integer"] > 0
    else:
        assert half.main_loop == brain.main_loop
    changed = (half.opcodes - brain.opcodes) + (brain.opcodes - half.opcodes)
    assert changed
    assert all(opcode.startswith(typed) for opcode in changed)


def test_a_kernel_of_the_other_type_is_found_in_its_machine_code() -> None:
    kernel = compile_kernel(variants.dense(8), "sm_90")
    impostor = replace(kernel, variant=replace(variants.dense(8), element=BFLOAT16))
    assert "HMMA.16816.F32 is not for bfloat16" in machine_code_faults(impostor)


def test_an_fp16_instruction_without_a_bfloat16_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"instruction fma\.rn\.f16x2 %r1, %r2, %r3, %r4: none for bfloat16; allowed:"):
        in_element("add.s32 %r1, %f161, 2;\n fma.rn.f16x2 %r1, %r2, %r3, %r4;", BFLOAT16)


def test_names_end_with_the_type() -> None:
    assert "dense_n8_bf16" in variants.all_variants(BFLOAT16)
    assert compile_ptx(variants.find_variants("reduce_bf16")[0], "sm_80")[1] == "reduce_bf16"
    assert [variant.name for variant in variants.find_variants("two_four_bf16")] == [
        f"two_four_n{n}_bf16" for n in (8, 16, 32, 64)
    ]
    assert variants.find_variants("bitmap_n8_bf16")[0].element is BFLOAT16
    assert {variant.element for variant in variants.find_variants("bitmap")} == {Element.FLOAT16}


# 1e30 is beyond fp16's range, 1e-39 below the smallest normal bfloat16; with 1e30 also a sum near the largest.
@pytest.mark.parametrize(("scale", "x_scale"), [(1, 1), (1e30, 1), (1e30, 3e6), (1e-39, 1), (1e-20, 1e-20)])
@pytest.mark.parametrize("name", ENCODERS)
def test_products_of_every_range(name: str, scale: float, x_scale: float) -> None:
    weights, x = problem(ENCODERS[name], scale=scale)
    x = narrowed(np.float64(x_scale) * (x.astype(np.uint32) << 16).view(np.float32), BFLOAT16)
    for out_dtype, split_k in (("bfloat16", 1), (np.float32, 1 if "csr" in name else 2)):
        out, results = emulate(weights, x, out_dtype=out_dtype, split_k=split_k)
        assert all(result.kernel.endswith("_bf16") for result in results)
        check_product(out, weights, x, name)


def test_each_representable_value_survives() -> None:
    """Every finite bfloat16 as a weight of its own, subnormal ones too: what comes out is what went in."""
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    bits = bits[(bits & 0x7F80) != 0x7F80].reshape(-1, 64)
    x = narrowed(np.eye(64), BFLOAT16)
    for encode in (Dense, encode_tiled_csl, encode_bitmap):
        out, _ = emulate(encode(bits, element=BFLOAT16), x, split_k=1)
        np.testing.assert_array_equal(out, np.where(bits == 0x8000, 0, bits))


def test_rounding_is_to_nearest_even() -> None:
    """1 + 2**-8 lies between two bfloat16 and goes to the even one, 1 + 3 * 2**-8 up; each a sum of its two parts."""
    a = narrowed(np.array([[1, 2**-8], [1, 3 * 2**-8], [-1, -(2**-8)]]), BFLOAT16)
    x = narrowed(np.ones((2, 8)), BFLOAT16)
    for encode in ENCODERS.values():
        out, _ = emulate(encode(a, element=BFLOAT16), x)
        np.testing.assert_array_equal(out[:, 0], [0x3F80, 0x3F82, 0xBF80])


def test_overflow_of_the_output_becomes_infinity() -> None:
    weights = Dense(narrowed(np.full((1, 8), 3e38), BFLOAT16), BFLOAT16)
    out = spmm(weights, narrowed(np.ones((8, 8)), BFLOAT16), backend="emulator")
    assert set(out.ravel()) == {0x7F80}


MMA, PACK = r"\.f32\.bf16\.bf16\.f32", r"(cvt\.rn\.bf16x2\.f32 [^,]+), ([^,]+), ([^;]+);"
LOW, HIGH = r"shl\.b32 (\S+), (\S+), 16; \}", r"and\.b32 (\S+), (\S+), 0xffff0000; \}"
pairs = partial(encode_bitmap, width=2)
# name -> (encoder, pattern in the kernel's PTX, what is planted)
BUGS: dict[str, tuple[Encoder, str, str]] = {
    "fp16 mma, tiled-csl": (encode_tiled_csl, MMA, ".f32.f16.f16.f32"),
    "fp16 mma, bitmap": (encode_bitmap, MMA, ".f32.f16.f16.f32"),
    "fp16 mma, pairs": (pairs, MMA, ".f32.f16.f16.f32"),
    "fp16 mma, dense": (Dense, MMA, ".f32.f16.f16.f32"),
    "fp16 mma.sp": (ENCODERS["two-four"], MMA, ".f32.f16.f16.f32"),
    "output packed the wrong way round": (Dense, PACK, r"\1, \3, \2;"),
    "output packed as fp16": (encode_bitmap, r"bf16x2", "f16x2"),
    "one value packed twice": (encode_tiled_csl, PACK, r"\1, \2, \2;"),
    "CSR packs the wrong way round": (encode_csr, PACK, r"\1, \3, \2;"),
    "CSR packs as fp16": (encode_csr, r"bf16x2", "f16x2"),
    "shift by 8": (encode_csr, LOW, r"shl.b32 \1, \2, 8; }"),
    "shift by 15": (encode_csr, LOW, r"shl.b32 \1, \2, 15; }"),
    "shift to the right": (encode_csr, LOW, r"shr.u32 \1, \2, 16; }"),
    "low half taken as fp16": (
        encode_csr, LOW, r".reg .b16 low, high; mov.b32 {low, high}, \2; cvt.f32.f16 \1, low; }",
    ),
    "low half for the high one": (encode_csr, HIGH, r"shl.b32 \1, \2, 16; }"),
    "high half not masked": (encode_csr, HIGH, r"mov.b32 \1, \2; }"),
    "mask a bit too short": (encode_csr, HIGH, r"and.b32 \1, \2, 0xfffe0000; }"),
    "mask a bit too long": (encode_csr, HIGH, r"and.b32 \1, \2, 0xffff8000; }"),
    "sign masked too": (encode_csr, HIGH, r"and.b32 \1, \2, 0x7fff0000; }"),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, pattern, planted = BUGS[name]
    counts = []

    def with_bug(variant: Variant, arch: str) -> tuple[str, str]:
        ptx, entry = compile_ptx(variant, arch)
        mutated, count = re.subn(pattern, planted, ptx)
        counts.append(count)
        return mutated, entry

    weights, x = problem(encode)
    check_product(emulate(weights, x, split_k=1)[0], weights, x)
    monkeypatch.setattr("kernels_numba.gpu.emulate.compile_ptx", with_bug)
    with pytest.raises((AssertionError, PtxError), match=r"elements are wrong|unsupported"):
        check_product(emulate(weights, x, split_k=1)[0], weights, x)
    assert sum(counts) > 0, "the kernel's PTX has changed and the bug is planted nowhere"


@pytest.mark.parametrize("planted", [r"\1, \3, \2;", r"\1, \2, \2;"])
def test_planted_bugs_of_the_sum_of_splits_are_caught(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_bug(variant: Variant, arch: str) -> tuple[str, str]:
        ptx, entry = compile_ptx(variant, arch)
        return re.sub(PACK, planted, ptx) if variant.kernel == "reduce" else ptx, entry

    weights, x = problem(Dense)
    monkeypatch.setattr("kernels_numba.gpu.emulate.compile_ptx", with_bug)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_product(emulate(weights, x, split_k=2)[0], weights, x)


@pytest.mark.parametrize("kernel", ["reduce", "csr"])
def test_an_fp16_kernel_among_bfloat16_ones_is_caught(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `launch` had forgotten the type of the sum, or of the residual."""

    def forgetful(variant: Variant, arch: str) -> tuple[str, str]:
        return compile_ptx(replace(variant, element=Element.FLOAT16) if variant.kernel == kernel else variant, arch)

    weights, x = problem(ENCODERS["two-four"])
    monkeypatch.setattr("kernels_numba.gpu.emulate.compile_ptx", forgetful)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_product(emulate(weights, x, split_k=1)[0], weights, x)
