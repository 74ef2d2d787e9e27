"""Would emulator and float64 notice a bug in the decoders of codes? Plants bugs; every one must be caught.

In the PTX of `gpu.quantised`, by ring and by bulk copies, and in records as `formats.records` might pack them wrongly.
What counts as caught, and the problems, are those of `test_record_mutations`.
"""

import numpy as np
import pytest

from kernels_numba.formats import ValueType
from tests.kernels_numba.ptx_emulator.mutations import replace, shift_parameter
from tests.kernels_numba.ptx_emulator.record_problems import CAPACITY, TOLERANCE, case, check_caught, relative_error
from tests.kernels_numba.ptx_emulator.test_record_mutations import caught_in, changed, with_entries

SCALE_PLACE = r"(shr\.s32\s+(%r\d+), %r\d+, )1;(\s+add\.s32\s+%r\d+, \2, 256;.*?and\.b32\s+%r\d+, %r\d+, )-8;"
MULTIPLY = r"mul\.rn\.f16x2 %r\d+, t, "
FIRST_CODE = r"(add\.s32\s+%r\d+, %r\d+, )"

# name -> (problem, mutation)
DECODER_BUGS = {
    "header of a plain bitmap": ("int8", replace(FIRST_CODE + "320;", r"\g<1>256;")),
    "header of a plain bitmap, in nibbles": ("int4", replace(FIRST_CODE + "640;", r"\g<1>512;")),
    "header counted in bytes for nibbles": ("int4", replace(FIRST_CODE + "640;", r"\g<1>320;")),
    "scales of the rows of lane 0": ("int8", replace(SCALE_PLACE, r"\g<1>31;\g<3>-8;")),
    "scales of two neighbouring lanes' rows mixed": ("int8", replace(SCALE_PLACE, r"\g<1>1;\g<3>-16;")),
    "scales by lane, not by row": ("e4m3", replace(SCALE_PLACE, r"\g<1>0;\g<3>-8;")),
    "scale of row g for row g + 8": ("int8", replace(r"0x3232;", "0x1010;", 0)),
    "scale of row g + 24 for row g + 16": ("int4", replace(r"0x1010;", "0x3232;", 1)),
    "scale in the lower half only": ("e5m2", replace(r"0x1010;", "0x4410;")),
    "scale in the upper half only": ("int8", replace(r"0x3232;", "0x3244;")),
    "scale of one chunk's upper rows for the lower": (
        "e4m3", replace(rf"({MULTIPLY})(%r\d+)(; }}\s+{{[^}}]*{MULTIPLY})%r\d+", r"\1\2\3\2", 0),
    ),
    "magic number one too large": ("int8", replace("0x64806480", "0x64816481")),
    "magic number without the sign": ("int8", replace("0x64806480", "0x64006400")),
    "magic number of 8 bits for 4": ("int4", replace("0x64086408", "0x64806480")),
    "magic number in the lower half only": ("int4", replace("0x64086408", "0x00006408")),
    "sign bit set, not flipped": ("int8", replace(r"xor\.b32 t, (%r\d+), magic", r"or.b32 t, \1, magic")),
    "magic number not subtracted": ("int4", replace(r"sub\.rn\.f16x2 t, t, magic;", "")),
    "scale added, not multiplied": ("int8", replace(r"mul(\.rn\.f16x2)", r"add\1")),
    "E4M3 shifted by 6": ("e4m3", replace(r"shl\.b32 t, (%r\d+), 7;", r"shl.b32 t, \1, 6;")),
    "E4M3 shifted as E5M2": ("e4m3", replace(r"shl\.b32 t, (%r\d+), 7;", r"shl.b32 t, \1, 8;")),
    "sign of E4M3 left in the exponent": ("e4m3", replace(r"add\.u32 t, t, sign;", "")),
    "sign of E4M3 lost": ("e4m3", replace(r"add\.u32 t, t, sign;", "sub.u32 t, t, sign;")),
    "sign of E4M3 in the lower half only": ("e4m3", replace("0x40004000", "0x00004000")),
    "E5M2 shifted by 7": ("e5m2", replace(r"shl\.b32 t, (%r\d+), 8;", r"shl.b32 t, \1, 7;")),
    "E5M2 shifted out": ("e5m2", replace(r"shl\.b32 t, (%r\d+), 8;", r"shl.b32 t, \1, 9;")),
    "absent code not cleared": ("int8", replace(r"mov\.b32 r2, 0;", "mov.b32 r2, 1;")),
    "absent nibble not cleared": ("int4", replace(r"mov\.b32 r3, 0;", "mov.b32 r3, next;")),
    "step of 2 bytes": ("int8", replace(r"add\.u32 place, place, 1;", "add.u32 place, place, 2;")),
    "no step behind one slot": ("e5m2", replace(r"@p3 add\.u32 place, place, 1;", "")),
    "two bytes loaded for one": ("e4m3", replace(r"ld\.shared\.u8 r1", "ld.shared.u16 r1")),
    "bytes loaded with their sign": ("int8", replace(r"ld\.shared\.u8 r", "ld.shared.s8 r")),
    "second code of a register a byte too low": ("int8", replace(r"high, 65536, r", "high, 256, r")),
    "nibbles of a byte the other way round": (
        "int4", replace(r"shl\.b32 start, (%r\d+), 2;", r"shl.b32 start, \1, 2; xor.b32 start, start, 4;"),
    ),
    "first nibble of its byte only": (
        "int4", replace(r"shl\.b32 start, (%r\d+), 2;", r"shl.b32 start, \1, 2; and.b32 start, start, 24;"),
    ),
    "last nibble's word not read": ("int4", replace(r"@any ld\.shared\.u32 high, \[high\];", "mov.b32 high, low;")),
    "words of nibbles swapped": ("int4", replace(r"next, low, high, start", "next, high, low, start")),
    "nibbles of half a word": ("int4", replace(r"shr\.u32 low, (%r\d+), 1;", r"shr.u32 low, \1, 2;")),
    "nibbles not taken apart": ("int4", replace(r"and\.b32 r1, next, 15;", "mov.b32 r1, next;")),
    "step of a byte between nibbles": ("int4", replace(r"@p1 shr\.u32 next, next, 4;", "@p1 shr.u32 next, next, 8;")),
    "place behind a chunk without the last lane": (
        "int8", replace(r"(shfl\.sync\.idx\.b32 %r\d+, %r\d+, )31, 31", r"\g<1>30, 31", 0),
    ),
    "capacity a unit too small": ("int4", shift_parameter(CAPACITY, -128)),
    "streaming: header of a plain bitmap": ("int8 streamed", replace(FIRST_CODE + "320;", r"\g<1>256;")),
    "streaming: scale of row g for row g + 8": ("int8 streamed", replace(r"0x3232;", "0x1010;", 0)),
    "streaming: absent code not cleared": ("int8 streamed", replace(r"mov\.b32 r0, 0;", "mov.b32 r0, 1;")),
}  # fmt: skip

SPREAD_BYTES = r"prmt\.b32 (%r\d+), (%r\d+), 0, 0x4140;"
# Of condensed strips, whose tails are decoded as a bitmap is.
CONDENSED_BUGS = {
    "header without scales": ("condensed int8", replace(FIRST_CODE + "448;", r"\g<1>384;")),
    "scales of condensed strips by lane": (
        "condensed e4m3", replace(SCALE_PLACE.replace("256", "384"), r"\g<1>0;\g<3>-8;"),
    ),
    "two codes left side by side": ("condensed int8", replace(SPREAD_BYTES, r"mov.b32 \1, \2;")),
    "codes of a register swapped": ("condensed int8", replace(SPREAD_BYTES, r"prmt.b32 \1, \2, 0, 0x4041;")),
    "second code lost": ("condensed e5m2", replace(SPREAD_BYTES, r"prmt.b32 \1, \2, 0, 0x4440;")),
    "codes in the upper bytes": ("condensed e4m3", replace(SPREAD_BYTES, r"prmt.b32 \1, \2, 0, 0x1404;")),
    "nibbles spread by 8": ("condensed int4", replace(r"shl\.b32 t, (%r\d+), 12;", r"shl.b32 t, \1, 8;")),
    "nibbles with their neighbours": ("condensed int4", replace("0x000f000f", "0x000f00ff")),
    "step of 4 bytes between registers": (
        "condensed int8", replace(r"add\.u32 place, place, 2;", "add.u32 place, place, 4;"),
    ),
    "step of 2 bytes between registers of nibbles": (
        "condensed int4", replace(r"@p1 add\.u32 place, place, 1;", "@p1 add.u32 place, place, 2;", 0),
    ),
    "a byte loaded for two": ("condensed e4m3", replace(r"ld\.shared\.u16 r2", "ld.shared.u8 r2")),
    "tail counted in bytes for nibbles": ("condensed int4", replace(FIRST_CODE + "160;", r"\g<1>80;")),
    "absent register not cleared": ("condensed int8", replace(r"mov\.b32 r1, 0;", "mov.b32 r1, 257;")),
}  # fmt: skip

MASKS, SCALES, CODES = slice(0, 128), slice(128, 160), slice(160, None)  # entries of a record


def scales_of_the_strip_before(weights):
    """Bug of an encoder: each strip has the scales of the one before, which may be of another group or row."""
    records, begins = weights.records.copy(), weights.offsets[:-2] * 8
    found = [weights.records[begin:][SCALES].copy() for begin in begins]
    for begin, scales in zip(begins[1:], found, strict=False):
        records[begin:][SCALES] = scales
    return changed(weights, records=records)


def rewritten(part, change):
    """Bug of an encoder: ``change`` gives other entries for a part of every record."""
    return with_entries(lambda record: record.__setitem__(part, change(record[part].copy())))


def scaled(factor):
    """Bug of an encoder: scales are multiplied by a factor."""
    return rewritten(SCALES, lambda scales: (scales.view(np.float16) * np.float16(factor)).view(np.uint16))


# name -> (problem, what an encoder might write wrongly)
ENCODER_BUGS = {
    "scales of the strip before": ("int8", scales_of_the_strip_before),
    "scales in the order of rows": ("int8", rewritten(SCALES, lambda scales: scales.reshape(8, 4).T.reshape(-1))),
    "E4M3 scales without their power of two": ("e4m3", scaled(2.0**-8)),
    "E5M2 scales with a power of two": ("e5m2", scaled(2.0**8)),
    "scales behind the codes": ("int4", rewritten(slice(128, None), lambda rest: np.roll(rest, -32))),
    "nibbles of a byte swapped": ("int4", rewritten(CODES, lambda codes: (codes & 0x0F0F) << 4 | codes >> 4 & 0x0F0F)),
    "bytes of an entry swapped": ("int8", rewritten(CODES, np.ndarray.byteswap)),
    "codes one place further": (
        "e5m2",
        rewritten(CODES, lambda codes: np.roll(codes.view(np.uint8), 1).view(np.uint16)),
    ),
    "halves of a lane's mask swapped": (
        "e4m3",
        rewritten(MASKS, lambda masks: masks.reshape(-1, 2, 2)[:, ::-1].reshape(-1)),
    ),
}

BUGS = DECODER_BUGS | CONDENSED_BUGS | {f"encoder: {name}": bug for name, bug in ENCODER_BUGS.items()}


@pytest.mark.parametrize(
    "name", [*ValueType, *(f"condensed {value_type}" for value_type in ValueType), "int8 streamed"]
)
def test_the_kernels_themselves_are_right(name):
    assert relative_error(name) < TOLERANCE


@pytest.mark.parametrize("value_type", ValueType)
def test_no_two_scales_of_a_strip_are_the_same(value_type):
    """So that a wrong row or group shows."""
    records = case(value_type).weights
    strips = [records.records[begin:][SCALES] for begin in records.offsets[:4] * 8]
    assert np.unique(np.concatenate(strips[::2])).size > 60


@pytest.mark.parametrize("name", DECODER_BUGS)
def test_bug_of_a_decoder_is_caught(name):
    problem, mutate = DECODER_BUGS[name]
    caught_in(problem, mutate, None)


@pytest.mark.parametrize("name", CONDENSED_BUGS)
def test_bug_of_a_condensed_decoder_is_caught(name):
    problem, mutate = CONDENSED_BUGS[name]
    caught_in(problem, mutate, None)


@pytest.mark.parametrize("name", ENCODER_BUGS)
def test_bug_of_the_records_is_caught(name):
    problem, mutate = ENCODER_BUGS[name]
    check_caught(None, problem, weights=mutate(case(problem).weights))
