"""Small files in every published layout, written by slow code of its own: one code after the other, in Python integers.

Each builder says what the matrix is: the values that its pieces stand for, its layout, its coding and its bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.kernels_numba.checkpoints.files import save

STEM = "model.layers.0.mlp.down_proj"
M, K = 128, 256
Tensors = dict[str, tuple[str, np.ndarray]]


@dataclass
class Layout:
    """tensors : dtype and values by the end of the name; ``values`` are None where the layout is not to be decoded."""

    tensors: Tensors
    what: str
    values: np.ndarray | None = None
    zeros: int | None = None
    name: str = f"{STEM}.weight"
    config: dict = field(default_factory=dict)

    def write(self, folder: Path, more: Tensors | None = None) -> Path:
        """The file, in a folder of its own with the config beside it."""
        tensors = {f"{STEM}{end}": entry for end, entry in self.tensors.items()} | (more or {})
        if self.config:
            (folder / "config.json").write_text(json.dumps({"quantization_config": self.config}))
        arrays = {name: values for name, (_, values) in tensors.items()}
        return save(folder / "model.safetensors", arrays, {name: dtype for name, (dtype, _) in tensors.items()})

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for _, values in self.tensors.values())


def words(codes: list[int], bits: int) -> list[int]:
    """32-bit words, as signed integers, of a stream of codes, lowest bits first."""
    stream = sum(code << bits * i for i, code in enumerate(codes))
    found = [stream >> 32 * i & 0xFFFFFFFF for i in range(-(-bits * len(codes) // 32))]
    return [word - (1 << 32) if word >> 31 else word for word in found]


def half(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scales as float16, none of them zero."""
    return (rng.random(shape) / 8 + 0.01).astype(np.float16)


def small_float(code: int, exponent_bits: int, mantissa_bits: int, bias: int) -> float:
    """Value of a code of any small float without infinities."""
    sign = -1.0 if code >> (exponent_bits + mantissa_bits) & 1 else 1.0
    exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    fraction = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    size = (1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias)
    return sign * size


E2M1 = [small_float(code, 2, 1, 1) for code in range(16)]
E4M3 = [small_float(code, 4, 3, 7) if code & 0x7F != 0x7F else float("nan") for code in range(256)]


def fp8_codes(rng: np.random.Generator, shape: tuple[int, ...], zeros: float = 0.1) -> np.ndarray:
    """Codes of E4M3 without NaN, some of them plus or minus zero."""
    codes = rng.integers(0, 127, shape) | rng.integers(0, 2, shape) << 7
    return np.where(rng.random(shape) < zeros, codes & 0x80, codes).astype(np.uint8)


def decoded_fp8(codes: np.ndarray) -> np.ndarray:
    return np.array([E4M3[code] for code in codes.reshape(-1)], np.float32).reshape(codes.shape)


def gptq(bits: int, group: int, version: int, order: bool = False, symmetric: bool = False) -> Layout:
    rng = np.random.default_rng(bits * 100 + group + version)
    groups, most = K // group, (1 << bits) - 1
    codes = rng.integers(0, most + 1, (M, K))
    zeros = np.full((M, groups), 1 << (bits - 1)) if symmetric else rng.integers(1, most + 1, (M, groups))
    scales = half(rng, (M, groups))
    g_idx = np.arange(K) // group
    if order:
        g_idx = rng.permutation(g_idx)
    stored = zeros - 1 if version == 1 else zeros
    values = np.empty((M, K), np.float32)
    for row in range(M):
        for column in range(K):
            g = g_idx[column]
            values[row, column] = np.float32(int(codes[row, column]) - int(zeros[row, g])) * np.float32(scales[row, g])
    tensors = {
        ".qweight": ("I32", np.array([words(codes[row].tolist(), bits) for row in range(M)], np.int32).T.copy()),
        ".qzeros": ("I32", np.array([words(stored[:, g].tolist(), bits) for g in range(groups)], np.int32)),
        ".scales": ("F16", scales.T.copy()),
        ".g_idx": ("I32", g_idx.astype(np.int32)),
    }
    config = {} if symmetric else {"checkpoint_format": "gptq" if version == 1 else "gptq_v2"}
    return Layout(tensors, f"GPTQ, INT{bits} g{group} zp", values, config=config)


def awq() -> Layout:
    rng, group = np.random.default_rng(4), 64
    codes, zeros = rng.integers(0, 16, (M, K)), rng.integers(0, 16, (M, K // group))
    scales = half(rng, (M, K // group))
    values = np.empty((M, K), np.float32)
    for row in range(M):
        for column in range(K):
            g = column // group
            values[row, column] = np.float32(int(codes[row, column]) - int(zeros[row, g])) * np.float32(scales[row, g])

    def packed(line: np.ndarray) -> list[int]:
        ordered = [int(line[8 * word + place]) for word in range(M // 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
        return words(ordered, 4)

    tensors = {
        ".qweight": ("I32", np.array([packed(codes[:, column]) for column in range(K)], np.int32)),
        ".qzeros": ("I32", np.array([packed(zeros[:, g]) for g in range(K // group)], np.int32)),
        ".scales": ("F16", scales.T.copy()),
    }
    return Layout(tensors, f"AWQ, INT4 g{group} zp", values)


def pack_quantized(bits: int, columns: int = K, zero_points: bool = False) -> Layout:
    """compressed-tensors: no code lies across two words, and the last word of a row may be filled up."""
    rng, group = np.random.default_rng(bits + columns), 32
    groups, middle, per_word = -(-columns // group), 1 << (bits - 1), 32 // bits
    signed = rng.integers(-middle, middle, (M, columns))
    zeros = rng.integers(-middle, middle, (M, groups)) if zero_points else np.zeros((M, groups), np.int64)
    scales = rng.random((M, groups), np.float32) + np.float32(0.01)
    values = np.empty((M, columns), np.float32)
    for row in range(M):
        for column in range(columns):
            g = column // group
            values[row, column] = np.float32(int(signed[row, column]) - int(zeros[row, g])) * scales[row, g]

    def packed(line: np.ndarray) -> list[int]:
        parts = [line[i : i + per_word].tolist() for i in range(0, len(line), per_word)]
        return [words([code + middle for code in part] + [0] * (per_word - len(part)), bits)[0] for part in parts]

    tensors = {
        ".weight_packed": ("I32", np.array([packed(line) for line in signed], np.int32)),
        ".weight_scale": ("F32", scales),
        ".weight_shape": ("I64", np.array([M, columns])),
    }
    if zero_points:
        tensors[".weight_zero_point"] = ("I32", np.array([packed(line) for line in zeros.T], np.int32).T.copy())
    zp = " zp" if zero_points else ""
    return Layout(tensors, f"compressed-tensors pack-quantized, INT{bits} g{group}{zp}", values)


def mlx() -> Layout:
    rng, bits, group = np.random.default_rng(7), 4, 64
    codes = rng.integers(0, 16, (M, K))
    scales, offsets = half(rng, (M, K // group)), np.zeros((M, K // group), np.float16)
    values = codes.astype(np.float32) * np.repeat(scales.astype(np.float32), group, axis=1)
    tensors = {
        ".weight": ("U32", np.array([words(line.tolist(), bits) for line in codes], np.int32).view(np.uint32)),
        ".scales": ("F16", scales),
        ".biases": ("F16", offsets),
    }
    return Layout(tensors, "MLX, INT4 g64 zp", values, config={"bits": 4, "group_size": 64})


def int_quantized(grain: str) -> Layout:
    rng = np.random.default_rng(8)
    codes = rng.integers(-128, 128, (M, K)).astype(np.int8)
    shape = {"row": (M, 1), "tensor": (1,), "g64": (M, K // 64)}[grain]
    scales = (rng.random(shape, np.float32) + np.float32(0.1)).astype(np.float32)
    wide = {"row": scales, "tensor": scales, "g64": np.repeat(scales, 64, axis=1) if grain == "g64" else scales}[grain]
    values = codes.astype(np.float32) * wide
    tensors = {".weight": ("I8", codes), ".weight_scale": ("F32", scales)}
    return Layout(tensors, f"int-quantized, INT8 {grain}", values)


def fp8(grain: str) -> Layout:
    rng = np.random.default_rng(9)
    codes = fp8_codes(rng, (M, K))
    values = decoded_fp8(codes)
    if grain == "none":
        return Layout({".weight": ("F8_E4M3", codes)}, "FP8 without scales", values)
    shape = {"row": (M, 1), "tensor": (), "128x128": (1, 2)}[grain]
    scales = np.asarray(rng.random(shape, np.float32) + np.float32(0.1))
    wide = np.repeat(scales, 128, axis=1) if grain == "128x128" else scales
    role, layout = ("_inv", "fine-grained FP8") if grain == "128x128" else ("", "float-quantized")
    tensors = {".weight": ("F8_E4M3", codes), f".weight_scale{role}": ("F32", scales)}
    return Layout(tensors, f"{layout}, FP8 {grain}", values * wide)


def mxfp8() -> Layout:
    rng = np.random.default_rng(10)
    codes, powers = fp8_codes(rng, (M, K)), rng.integers(110, 140, (M, K // 32)).astype(np.uint8)
    values = decoded_fp8(codes) * np.repeat(np.float32(2) ** (powers.astype(np.float32) - 127), 32, axis=1)
    return Layout({".weight": ("F8_E4M3", codes), ".weight_scale": ("U8", powers)}, "float-quantized, MXFP8", values)


def fp4_bytes(codes: np.ndarray) -> np.ndarray:
    return np.array(
        [[int(line[i]) | int(line[i + 1]) << 4 for i in range(0, len(line), 2)] for line in codes], np.uint8
    )


def fp4(maker: str) -> Layout:
    """NVFP4 and MXFP4, by who stores it; factors are powers of two, so that products are exact."""
    rng = np.random.default_rng(11)
    codes = rng.integers(0, 16, (M, K))
    values = np.array([[E2M1[code] for code in line] for line in codes], np.float32)
    bytes_ = fp4_bytes(codes)
    if "mxfp4" in maker.lower():
        powers = rng.integers(110, 140, (M, K // 32)).astype(np.uint8)
        values = values * np.repeat(np.float32(2) ** (powers.astype(np.float32) - 127), 32, axis=1)
        if maker == "gpt-oss MXFP4":
            shape = (2, M // 2, K // 32)
            tensors = {"_blocks": ("U8", bytes_.reshape(*shape, 16)), "_scales": ("U8", powers.reshape(shape))}
            return Layout(tensors, maker, values, name=STEM)
        return Layout({".weight_packed": ("U8", bytes_), ".weight_scale": ("U8", powers)}, maker, values)
    inner = rng.integers(1, 120, (M, K // 16)).astype(np.uint8)
    values = values * np.repeat(decoded_fp8(inner), 16, axis=1)
    if maker == "ModelOpt NVFP4":
        factor = ("F32", np.array(0.25, np.float32))
        tensors = {".weight": ("U8", bytes_), ".weight_scale": ("F8_E4M3", inner), ".weight_scale_2": factor}
        return Layout(tensors, maker, values * np.float32(0.25))
    factor = ("F32", np.array([4.0], np.float32))
    tensors = {".weight_packed": ("U8", bytes_), ".weight_scale": ("F8_E4M3", inner), ".weight_global_scale": factor}
    return Layout(tensors, maker, values / np.float32(4))


def bitmask(pattern: bool, codes: bool = False) -> Layout:
    """compressed-tensors without zeros: of a 2:4 pattern two values of four, stored zeros among them, or non-zeros."""
    rng, columns = np.random.default_rng(12), K if pattern else K - 3
    dense = fp8_codes(rng, (M, columns), 0) if codes else rng.standard_normal((M, columns)).astype(np.float16)
    keep = np.zeros((M, columns), bool)
    for row in range(M):
        for first in range(0, columns, 4):
            width = min(4, columns - first)
            chosen = rng.permutation(width)[: 2 if pattern else rng.integers(0, width + 1)]
            keep[row, first + chosen] = True
    dense = np.where(keep, dense, np.zeros((), dense.dtype))
    if pattern:
        row, column = np.argwhere(keep)[0]
        dense[row, column] = 0  # a value that is stored and yet zero
    bits = [[sum(int(x) << i for i, x in enumerate(line[c : c + 8])) for c in range(0, columns, 8)] for line in keep]
    counts = keep.sum(axis=1)
    kept = np.concatenate([dense[row][keep[row]] for row in range(M)])
    tensors = {
        ".compressed": ("F8_E4M3" if codes else "F16", kept.reshape(M, -1) if pattern else kept),
        ".bitmask": ("U8", np.array(bits, np.uint8)),
        ".shape": ("I64", np.array([M, columns])),
    }
    if not pattern:
        tensors[".row_offsets"] = ("I64", np.cumsum(counts) - counts)
    values = decoded_fp8(dense) if codes else dense.astype(np.float32)
    kind = "FP8 row" if codes else "F16"
    if codes:
        scales = rng.random((M, 1), np.float32) + np.float32(0.1)
        tensors[".weight_scale"] = ("F32", scales)
        values = values * scales
    what = f"compressed-tensors sparse-{'24-' * pattern}bitmask, {kind}{' 2:4' * pattern}"
    return Layout(tensors, what, values)


NF4 = [-1, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1]  # close enough


def bitsandbytes(nested: bool) -> Layout:
    """Two codes a byte, the high half first, one after the other over the whole matrix."""
    rng, columns, block = np.random.default_rng(13), K - 1, 64
    codes = rng.integers(0, 16, M * columns)
    table = np.array(NF4, np.float32)
    count = -(-len(codes) // block)
    largest = (rng.random(count) + 0.1).astype(np.float32)
    state = {"quant_type": "nf4", "blocksize": block, "shape": [M, columns], "dtype": "float16"}
    tensors: Tensors = {
        ".weight": ("U8", np.array([[codes[i] << 4 | codes[i + 1]] for i in range(0, len(codes), 2)], np.uint8)),
        ".weight.quant_map": ("F32", table),
    }
    if nested:
        indices = rng.integers(0, 256, count).astype(np.uint8)
        outer_map, outer = rng.random(256, np.float32), rng.random(-(-count // 256), np.float32)
        state |= {"nested_blocksize": 256, "nested_offset": 0.5, "nested_dtype": "float32"}
        largest = np.array(
            [outer_map[c] * outer[i // 256] + np.float32(0.5) for i, c in enumerate(indices)], np.float32
        )
        tensors[".weight.absmax"] = ("U8", indices)
        tensors[".weight.nested_absmax"] = ("F32", outer)
        tensors[".weight.nested_quant_map"] = ("F32", outer_map)
    else:
        tensors[".weight.absmax"] = ("F32", largest)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    tensors[".weight.quant_state.bitsandbytes__nf4"] = ("U8", text)
    values = np.array([table[code] * largest[i // block] for i, code in enumerate(codes)], np.float32)
    return Layout(tensors, f"bitsandbytes 4-bit, NF4 g{block}", values.reshape(M, columns))


def bitsandbytes_8() -> Layout:
    rng = np.random.default_rng(14)
    codes, largest = rng.integers(-127, 128, (M, K)).astype(np.int8), rng.random(M, np.float32)
    values = codes.astype(np.float32) * (largest / np.float32(127))[:, None]
    tensors = {".weight": ("I8", codes), ".SCB": ("F32", largest), ".weight_format": ("U8", np.array(0, np.uint8))}
    return Layout(tensors, "bitsandbytes 8-bit, INT8 row", values)


def marlin(group: int) -> Layout:
    """Code by code: the place of weight (k, m) in its tile, chunk, lane and word."""
    rng = np.random.default_rng(15)
    codes, scales = rng.integers(0, 16, (K, M)), half(rng, (K // group, M))
    chunks = np.zeros((K // 16, M // 64, 1024), np.int64)
    for k in range(K):
        for m in range(M):
            row, column = k % 16, m % 16
            lane = 4 * (column % 8) + row % 8 // 2
            place = 2 * (2 * (column // 8) + row // 8) + row % 2  # of eight codes of a lane and tile
            position = [0, 4, 1, 5, 2, 6, 3, 7][place]
            chunks[k // 16, m // 64, lane * 32 + m % 64 // 16 * 8 + position] = codes[k, m]
    if group < K:
        order = [i + 8 * j for i in range(8) for j in range(8)]
    else:
        order = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
    stored = scales.reshape(-1, len(order))[:, order].reshape(scales.shape)
    tensors = {
        ".B": ("I32", np.array([words(line.reshape(-1).tolist(), 4) for line in chunks], np.int32)),
        ".s": ("F16", stored),
        ".workspace": ("I32", np.zeros(16, np.int32)),
    }
    values = (codes - 8).astype(np.float32) * np.repeat(scales.astype(np.float32), group, axis=0)
    return Layout(tensors, f"Marlin, INT4 {f'g{group}' if group < K else 'row'}", values.T.copy())


def marlin_24() -> Layout:
    """Of its codes only the number that are the middle is known, wherever they stand."""
    rng = np.random.default_rng(16)
    kept = rng.integers(0, 16, (K // 32, 16 * M))
    tensors = {
        ".weight_packed": ("I32", np.array([words(line.tolist(), 4) for line in kept], np.int32)),
        ".meta": ("I16", rng.integers(0, 99, (K // 32, 2 * M)).astype(np.int16)),
        ".scale_packed": ("F16", half(rng, (2, M))),
    }
    return Layout(tensors, f"Marlin-24, INT4 g{K // 2} 2:4", zeros=M * K // 2 + int((kept == 8).sum()))


def masked() -> Layout:
    rng = np.random.default_rng(17)
    weights, mask = rng.standard_normal((M, K)).astype(np.float16), rng.integers(0, 2, (M, K)).astype(np.float16)
    tensors = {".weight_orig": ("F16", weights), ".weight_mask": ("F16", mask)}
    return Layout(tensors, "torch.nn.utils.prune, F16", weights.astype(np.float32) * mask)


def floats_with_scales() -> Layout:
    rng = np.random.default_rng(18)
    weights = rng.integers(-8, 8, (M, K)).astype(np.float16)
    tensors = {".weight": ("F16", weights), ".weight_scale": ("F16", half(rng, (M, 4)))}
    return Layout(tensors, "F16 with scales", zeros=int((weights == 0).sum()))


def unknown(ends: dict[str, tuple[str, tuple[int, ...]]], what: str) -> Layout:
    """Any tensors that hold codes in a way nobody told us."""
    types = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "I16": np.int16, "U8": np.uint8, "I8": np.int8}
    types |= {"I64": np.int64, "U16": np.uint16}
    tensors = {end: (dtype, np.ones(shape, types[dtype])) for end, (dtype, shape) in ends.items()}
    return Layout(tensors, what)


DECODED: dict[str, Callable[[], Layout]] = {
    "GPTQ 4": lambda: gptq(4, 64, 1),
    "GPTQ 4, v2": lambda: gptq(4, 128, 2),
    "GPTQ 8": lambda: gptq(8, 64, 1),
    "GPTQ 3": lambda: gptq(3, 64, 1),
    "GPTQ 2": lambda: gptq(2, 32, 1),
    "GPTQ, columns in order of activation": lambda: gptq(4, 64, 1, order=True),
    "GPTQ symmetric, nothing says v1": lambda: gptq(4, 64, 1, symmetric=True),
    "GPTQ symmetric, nothing says v2": lambda: gptq(4, 64, 2, symmetric=True),
    "AWQ": awq,
    "pack-quantized 4": lambda: pack_quantized(4),
    "pack-quantized 8": lambda: pack_quantized(8),
    "pack-quantized 4, zero points": lambda: pack_quantized(4, zero_points=True),
    "pack-quantized 3, filled up": lambda: pack_quantized(3, 250),
    "MLX": mlx,
    "int-quantized by row": lambda: int_quantized("row"),
    "int-quantized by tensor": lambda: int_quantized("tensor"),
    "int-quantized by group": lambda: int_quantized("g64"),
    "FP8 by tensor": lambda: fp8("tensor"),
    "FP8 by row": lambda: fp8("row"),
    "FP8 by block": lambda: fp8("128x128"),
    "FP8 without scales": lambda: fp8("none"),
    "MXFP8": mxfp8,
    "NVFP4 of ModelOpt": lambda: fp4("ModelOpt NVFP4"),
    "NVFP4 of compressed-tensors": lambda: fp4("compressed-tensors nvfp4-pack-quantized"),
    "MXFP4 of gpt-oss": lambda: fp4("gpt-oss MXFP4"),
    "MXFP4 of compressed-tensors": lambda: fp4("compressed-tensors mxfp4-pack-quantized"),
    "sparse-24-bitmask": lambda: bitmask(True),
    "sparse-24-bitmask, FP8": lambda: bitmask(True, codes=True),
    "sparse-bitmask": lambda: bitmask(False),
    "bitsandbytes 4": lambda: bitsandbytes(False),
    "bitsandbytes 4, nested": lambda: bitsandbytes(True),
    "bitsandbytes 8": bitsandbytes_8,
    "masks of PyTorch": masked,
    "Marlin": lambda: marlin(128),
    "Marlin by row": lambda: marlin(K),
}
NAMED: dict[str, Callable[[], Layout]] = {
    "Marlin-24": marlin_24,
    "weights with scales": floats_with_scales,
    "HQQ": lambda: unknown({".W_q": ("U8", (64, 256)), ".scale": ("F16", (512, 1)), ".zero": ("F16", (512, 1))}, "HQQ"),
    "AQLM": lambda: unknown(
        {".codes": ("I16", (128, 32, 1)), ".codebooks": ("F16", (1, 65536, 1, 8)), ".scales": ("F16", (128, 1, 1, 1))},
        "AQLM",
    ),
    "VPTQ": lambda: unknown({".indices": ("I32", (1, 32, 64)), ".centroids.weight": ("F16", (1, 4096))}, "VPTQ"),
    "QuIP#": lambda: unknown(
        {".Qidxs": ("I64", (128, 32)), ".SU": ("F16", (256,)), ".had_left": ("F16", (16, 16))}, "QuIP#"
    ),
    "EXL2": lambda: unknown({".q_weight": ("I32", (32, 128)), ".q_scale": ("I32", (4, 16))}, "EXL2"),
    "EXL3": lambda: unknown({".trellis": ("I16", (16, 8, 64)), ".suh": ("F16", (256,))}, "EXL3"),
    "SqueezeLLM": lambda: unknown({".qweight": ("I32", (32, 128)), ".lookup_table": ("F16", (128, 16))}, "SqueezeLLM"),
    "QServe": lambda: unknown({".qweight": ("I8", (128, 128)), ".s1_scales": ("F16", (128, 1))}, "QServe"),
    "Quanto": lambda: unknown({".weight._data": ("I8", (128, 256)), ".weight._scale": ("F16", (128, 1))}, "Quanto"),
    "EETQ": lambda: unknown({".weight": ("I8", (256, 128)), ".weight_scales": ("F16", (128,))}, "EETQ"),
    "BitNet": lambda: unknown({".weight": ("U8", (32, 256)), ".weight_scale": ("F16", (1,))}, "codes with scales"),
    "SmoothQuant": lambda: unknown({".weight": ("I8", (128, 256)), ".dequant_scale": ("F32", (128, 1))}, "SmoothQuant"),
    "AWQ for vectors": lambda: unknown(
        {".qweight": ("I32", (128, 32)), ".qzeros": ("I32", (128, 1)), ".scales": ("F16", (128, 8))}, "like GPTQ or AWQ"
    ),
    "half of GPTQ": lambda: unknown({".qweight": ("I32", (32, 128)), ".g_idx": ("I32", (256,))}, "like GPTQ or AWQ"),
    "weights and where they belong": lambda: unknown(
        {".weight": ("F16", (128, 128)), ".weight_indices": ("U8", (128, 128))}, "packed weights"
    ),
    "some private layout": lambda: unknown(
        {".kernel_q": ("U8", (128, 128)), ".kernel_steps": ("F16", (128, 4))}, "packed weights"
    ),
    "codes with what corrects them": lambda: unknown(
        {".qweight": ("I8", (128, 128)), ".wscales": ("F16", (4, 128)), ".proj_down": ("F16", (256, 32))},
        "like GPTQ or AWQ",
    ),
    "INT8 without scales": lambda: unknown({".weight": ("I8", (128, 256))}, "packed weights"),
}
