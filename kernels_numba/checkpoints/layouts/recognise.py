"""Which matrices of a checkpoint are stored in pieces, in which layout?

By names, types and shapes; a config.json beside the file only settles what these leave open. A module whose tensors
fit no layout known, but hold codes, is named as far as it can be: nothing in it is taken for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernels_numba.checkpoints.layouts.bitmasks import bitmask, masked
from kernels_numba.checkpoints.layouts.floats import blocks, coded, fp4, scaled_floats
from kernels_numba.checkpoints.layouts.integers import awq, gptq, mlx, pack_quantized
from kernels_numba.checkpoints.layouts.marlin import marlin, marlin_24
from kernels_numba.checkpoints.layouts.names import is_carrier, is_parameter, module_of, role_of
from kernels_numba.checkpoints.layouts.pieces import Packed, Pieces
from kernels_numba.checkpoints.layouts.tables import bitsandbytes, int8
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, TensorInfo, parse_json

LAYOUTS: tuple[Callable[[Pieces], Packed | None], ...] = (
    gptq, awq, marlin_24, pack_quantized, bitmask, blocks, bitsandbytes, int8, fp4, coded, mlx, marlin,
    masked, scaled_floats,
)  # fmt: skip
# Layouts that are not decoded, by a tensor's name that no other has.
SIGNATURES = {
    "W_q": "HQQ", "codebooks": "AQLM", "Qidxs": "QuIP#", "q_weight": "EXL2", "trellis": "EXL3", "q_perm": "EXL2",
    "lookup_table": "SqueezeLLM", "s1_scales": "QServe", "weight._data": "Quanto", "dense_weights": "SpQR",
    "weight_qdata": "torchao", "weights_scaling_factor": "TensorRT-LLM", "tables2": "HIGGS",
    "forward_hadamard_matrix": "FP-Quant", "encoded_exponent": "DFloat11", "dequant_scale": "SmoothQuant",
    "weight_scales": "EETQ", "qweight": "like GPTQ or AWQ", "centroids.weight": "VPTQ",
    "weight_packed": "like compressed-tensors", "weight_scale": "codes with scales",
    "B": "like Marlin",
}  # fmt: skip
UNKNOWN = "packed weights"
CONFIG_KEYS = ("quantization_config", "quantization", "compression_config")
MAX_CONFIG_BYTES = 1 << 24


def packed_matrices(checkpoint: Checkpoint) -> list[Packed]:
    """Every matrix that is stored in pieces, in the order of the file."""
    config = _quantisation(checkpoint.path.parent)
    groups: dict[str, dict[str, TensorInfo]] = {}
    for name, info in checkpoint.tensors.items():
        stem, role = role_of(name)
        groups.setdefault(stem, {})[role] = info
    found = [_recognised(Pieces(checkpoint, stem, by_role, config)) for stem, by_role in groups.items()]
    known = [matrix for matrix in found if matrix is not None]
    order = {name: index for index, name in enumerate(checkpoint.tensors)}
    return sorted([*known, *_unknown(checkpoint, known)], key=lambda matrix: order[matrix.parts[0]])


def _recognised(pieces: Pieces) -> Packed | None:
    return next((matrix for layout in LAYOUTS if (matrix := layout(pieces)) is not None), None)


def _unknown(checkpoint: Checkpoint, known: list[Packed]) -> list[Packed]:
    """One record for each module that holds codes which no layout explains."""
    claimed = {name for matrix in known for name in matrix.parts}
    modules: dict[str, list[TensorInfo]] = {}
    for name, info in checkpoint.tensors.items():
        if name not in claimed:
            modules.setdefault(module_of(name), []).append(info)
    found = []
    for module, infos in modules.items():
        parts = [info for info in infos if not info.name.endswith("bias")]
        # A line of numbers all by itself, a tokenizer's say, leads nobody to take something else for weights.
        if any(is_carrier(info) and (len(info.shape) > 1 or len(parts) > 1) for info in parts):
            found.append(_unknown_module(module, parts))
    return found


def _unknown_module(module: str, parts: list[TensorInfo]) -> Packed:
    leaves = [info.name.removeprefix(module).lstrip(".") for info in parts]
    layout = next((SIGNATURES[leaf] for leaf in SIGNATURES if leaf in leaves), UNKNOWN)
    seen = ", ".join(f"{leaf or info.name} {info.dtype}" for leaf, info in zip(leaves, parts, strict=True))
    nbytes = sum(info.nbytes for info in parts)
    names = tuple(info.name for info in parts)
    return Packed(f"{module}.weight", layout, names, nbytes, obstacle=f"no layout known here has its {seen}")


def pieces_of(checkpoint: Checkpoint, packed: list[Packed]) -> set[str]:
    """Names of all tensors that are no weights: in modules of ``packed``, and parameters of codes elsewhere."""
    modules = {module_of(part) for matrix in packed for part in matrix.parts}
    parts = {part for matrix in packed for part in matrix.parts}
    return parts | {name for name in checkpoint.tensors if module_of(name) in modules or is_parameter(name)}


def _quantisation(folder: Path) -> Mapping[str, Any]:
    """What config.json, or AutoGPTQ's own file, says of codes; nothing if there is none to be read."""
    for name in ("config.json", "quantize_config.json"):
        file = folder / name
        if not file.is_file() or file.stat().st_size > MAX_CONFIG_BYTES:
            continue
        try:
            config = parse_json(file.read_bytes(), file)
        except ValueError:
            continue  # only a help; who needs the config says what is wrong with it
        entry = next((config[key] for key in CONFIG_KEYS if isinstance(config.get(key), dict)), None)
        if entry is not None or name != "config.json":
            return config if entry is None else entry
    return {}
