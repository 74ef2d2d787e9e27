"""How a quantised checkpoint stores each matrix, by the ``quantization_config`` of its ``config.json``.

Pure: a parsed configuration comes in, :class:`~perfmodel.catalog.language_model.Stored` goes out. Each method below
says which bits and scales its keys mean (`quantised_formats`) and which modules it leaves alone (`module_rules`). What
a configuration does not say is not guessed: methods and widths without a format are refused.

A matrix has one format in all layers, that of most of them: where the first and the last layer stay in 16 bits, as
some recipes want, their share is lost, and the checkpoint is a little larger than counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfmodel.catalog.decoder import Decoder
from perfmodel.catalog.hf.module_rules import Names, Rules, formats_by_matrix, names
from perfmodel.catalog.hf.quantised_formats import BLOCK, BLOCK_SIZE, ROW, TENSOR, Codes
from perfmodel.catalog.language_model import Stored
from perfmodel.catalog.names import unknown_name

Config = Mapping[str, Any]
_KEY = "quantization_config"
_PATTERN = "2:4"  # the format of 16-bit weights of which two of four are zero
_CLASS = re.compile(r"^[A-Z]\w*$")
_UNGROUPED = (None, -1, 0)


def stored_from_config(config: Mapping[str, Any], shape: Decoder) -> Stored | None:
    """Storage that a Hugging Face configuration describes; None for 16-bit checkpoints.

    Parameters
    ----------
    config
        The parsed ``config.json``; ModelOpt's ``hf_quant_config.json`` is understood in its place.
    shape
        The model's decoder: which matrices there are.

    Raises
    ------
    ValueError
        If the method is unknown, or it stores weights in a way that no format has; the message names key, value and
        what is allowed.
    """
    found = _quantisation(config)
    if found is None:
        return None
    method = found["quant_method"]
    if not isinstance(method, str) or method not in _METHODS:
        raise ValueError(unknown_name(f"{_KEY}.quant_method", str(method), _METHODS))
    rules = _METHODS[method](found)
    return Stored(method=method, formats=formats_by_matrix(shape, rules), cache_bits=_cache_bits(found))


def _quantisation(config: Config) -> Config | None:
    """The configuration's entry, flat, with a method; None if there is none."""
    text = config.get("text_config")
    places = (config, text if isinstance(text, Mapping) else {})
    keys = (_KEY, "compression_config")  # the latter before transformers knew compressed-tensors
    found = next((place[key] for place in places for key in keys if place.get(key) is not None), None)
    if found is None and isinstance(config.get("quantization"), Mapping):
        found = {"quantization": config["quantization"]}  # hf_quant_config.json
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise ValueError(f"{_KEY} is {found!r}, allowed is an object of keys")
    found = {key: value for key, value in found.items() if value is not None}
    if isinstance(found.get("quantization"), Mapping):
        found = {"quant_method": "modelopt"} | found | dict(found["quantization"])
    if "quant_method" not in found and any(key.endswith(("load_in_4bit", "load_in_8bit")) for key in found):
        found["quant_method"] = "bitsandbytes"
    if "quant_method" not in found:
        raise ValueError(f"missing key {_KEY}.quant_method")
    if "expert_dtype" in config:
        found["expert_dtype"] = config["expert_dtype"]
    return found


def _compressed_tensors(found: Config) -> Rules:
    """Groups of modules, each with its own codes; the first group that names a module counts."""
    sparsity = found.get("sparsity_config") or {}
    pattern = found.get("format") == "marlin-24" or (
        sparsity.get("sparsity_structure") == _PATTERN and sparsity.get("format") != "dense"
    )
    rules: list[tuple[Names, str | None]] = [(_listed(found, "ignore"), None)]
    default = _PATTERN if pattern and not found.get("config_groups") else None
    for name, group in _objects(found, "config_groups").items():
        key = f"config_groups.{name}"
        if group.get("weights") is None:
            continue  # a group of activations or of the cache
        stored = _tensor_format(group, key, pattern)
        targets = _strings(group.get("targets", ["Linear"]), f"{key}.targets")
        classes = [target for target in targets if _CLASS.match(target)]
        rules.append((names((target for target in targets if target not in classes), f"{_KEY}.{key}.targets"), stored))
        default = default or (stored if classes else None)
    return Rules(tuple(rules), default)


def _tensor_format(group: Config, key: str, pattern: bool) -> str:
    """Format of a group's weights as compressed-tensors describes tensors."""
    weights, inputs = group["weights"], group.get("input_activations") or {}
    key = f"{_KEY}.{key}.weights"
    if not isinstance(weights, Mapping):
        raise ValueError(f"{key} is {weights!r}, allowed is an object of keys")
    strategy, size = weights.get("strategy"), weights.get("group_size")
    if strategy is None:  # as the library infers it
        strategy = TENSOR if size is None else ROW if size == -1 else "group"
    grain: str | int = strategy
    if strategy in ("group", "tensor_group"):
        grain = _whole(weights, "group_size", key)
    elif strategy == BLOCK:
        _check_block(weights.get("block_structure"), f"{key}.block_structure")
    return Codes(
        key, _whole(weights, "num_bits", key), grain,
        floating=weights.get("type", "int") == "float", zero_points=not weights.get("symmetric", True),
        activation_bits=_whole(inputs, "num_bits", key, 16), pattern=pattern, bits_key="num_bits",
        grain_key="group_size" if isinstance(grain, int) else "strategy",
    ).format  # fmt: skip


def _awq(found: Config) -> Rules:
    stored = _integers(found, zero_points=bool(found.get("zero_point", True)))
    return Rules(((_listed(found, "modules_to_not_convert"), None),), stored)


def _gptq(found: Config) -> Rules:
    """GPTQ, and AutoRound, whose keys are alike; ``dynamic`` and ``extra_config`` hold exceptions by module."""
    kind = found.get("data_type", "int")
    if kind != "int":
        raise ValueError(f"{_KEY}.data_type is {kind!r}, allowed is 'int'")
    pattern = found.get("checkpoint_format") == "marlin_24"
    stored = _integers(found, zero_points=not found.get("sym", True), pattern=pattern)
    rules: list[tuple[Names, str | None]] = []
    for name, change in _objects(found, "dynamic").items():
        own = None if name.startswith("-:") else _changed(found, change, pattern)
        expression = f"re:{name[2:] if name[:2] in ('-:', '+:') else name}"
        rules.append((names([expression], f"{_KEY}.dynamic"), own))
    for name, change in _objects(found, "extra_config").items():
        rules.append((names([name], f"{_KEY}.extra_config"), _changed(found, change, pattern)))
    head = stored if found.get("lm_head") is True else None
    if inside := found.get("modules_in_block_to_quantize"):
        rules.append(
            (names((name for step in inside for name in step), f"{_KEY}.modules_in_block_to_quantize"), stored)
        )
        return Rules(tuple(rules), None, head)
    return Rules(tuple(rules), stored, head)


def _changed(found: Config, change: Config, pattern: bool) -> str | None:
    """Format of the modules that an exception changes."""
    own = {**found, **change}
    return None if own.get("bits") == 16 else _integers(own, zero_points=not own.get("sym", True), pattern=pattern)


def _fp8(found: Config) -> Rules:
    """FP8 of DeepSeek, Qwen and vLLM: a scale a tensor, or a block where its size is given."""
    block = found.get("weight_block_size")
    stored = "fp8"
    if block == [1, 32]:
        stored = "mxfp8"
    elif block is not None:
        _check_block(block, f"{_KEY}.weight_block_size")
        stored = "fp8-block"
    kept = [(_listed(found, key), None) for key in ("modules_to_not_convert", "ignored_layers", "ignore")]
    experts = [(names(["experts"], _KEY), "mxfp4")] if found.get("expert_dtype") == "fp4" else []  # DeepSeek-V4
    return Rules((*kept, *experts), stored)


def _fbgemm_fp8(found: Config) -> Rules:
    return Rules(((_listed(found, "modules_to_not_convert"), None),), "fp8-row")


def _mxfp4(found: Config) -> Rules:
    """OpenAI's gpt-oss: experts alone, whatever the list of exceptions says."""
    return Rules(((_listed(found, "modules_to_not_convert"), None), (names(["experts"], _KEY), "mxfp4")))


_ALGORITHMS = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8-row", "FP8_PB_WO": "fp8-block", "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4", "W4A16_NVFP4": "nvfp4", "MXFP4": "mxfp4", "W4A8_MXFP4_FP8": "mxfp4", "MXFP8": "mxfp8",
    "W8A16": "int8", "W8A8_SQ_PER_CHANNEL": "int8-w8a8", "W4A16_AWQ": "int4", "W4A16": "int4",
}  # fmt: skip


def _modelopt(found: Config) -> Rules:
    """NVIDIA's Model Optimizer: an algorithm for all modules, or one for each (``MIXED_PRECISION``)."""
    algorithm = str(found.get("quant_algo", "none")).upper()
    layers = _objects(found, "quantized_layers")
    if found.get("config_groups") and (algorithm == "NONE" or (algorithm == "MIXED_PRECISION" and not layers)):
        return _compressed_tensors(found)
    if algorithm == "NONE":
        return Rules()  # the cache alone
    kept = [(_listed(found, key), None) for key in ("exclude_modules", "ignore", "modules_to_not_convert")]
    if algorithm != "MIXED_PRECISION":
        return Rules(tuple(kept), _algorithm(algorithm, found))
    if not layers:
        raise ValueError(f"missing key {_KEY}.quantized_layers")
    by_format: dict[str, list[str]] = {}
    for name, own in layers.items():
        by_format.setdefault(_algorithm(str(own.get("quant_algo")).upper(), own), []).append(name)
    key = f"{_KEY}.quantized_layers"
    return Rules((*kept, *((names(modules, key), stored) for stored, modules in by_format.items())))


def _algorithm(algorithm: str, found: Config) -> str:
    """Format of an algorithm; of those with groups, by their size."""
    if algorithm not in _ALGORITHMS:
        raise ValueError(unknown_name(f"{_KEY}.quant_algo", algorithm, _ALGORITHMS))
    stored = _ALGORITHMS[algorithm]
    if stored == "int4":
        return Codes(_KEY, 4, _whole(found, "group_size", _KEY, 128)).format
    if stored == "nvfp4" and (size := _whole(found, "group_size", _KEY, 16)) != 16:
        raise ValueError(f"{_KEY}.group_size is {size}, allowed with {algorithm} is 16")
    return stored


def _bitsandbytes(found: Config) -> Rules:
    """NF4 and FP4 have a scale for 64 weights, of 8 bits or 32: between them lie the 16 of INT4 in groups of 64."""
    in_4_bits = bool(found.get("load_in_4bit", found.get("_load_in_4bit")))
    if not in_4_bits and not found.get("load_in_8bit", found.get("_load_in_8bit")):
        raise ValueError(f"{_KEY}.load_in_4bit and load_in_8bit are both false, allowed is one of them")
    stored = "int4-g64" if in_4_bits else "int8-w8a8"
    return Rules(((_listed(found, "llm_int8_skip_modules"), None),), stored)


_METHODS: dict[str, Callable[[Config], Rules]] = {
    "compressed-tensors": _compressed_tensors,
    "awq": _awq,
    "gptq": _gptq,
    "auto-round": _gptq,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
    "bitsandbytes": _bitsandbytes,
}


def _cache_bits(found: Config) -> int | None:
    """Bits of a cached value, scales not counted."""
    scheme = found.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return _whole(scheme, "num_bits", f"{_KEY}.kv_cache_scheme")
    if "cache_bits" in found:
        return _whole(found, "cache_bits", _KEY)
    algorithm = found.get("kv_cache_quant_algo", scheme)
    if algorithm is None:
        return None
    known = {"FP8": 8, "INT8": 8, "NVFP4": 4, "NONE": None}
    if str(algorithm).upper() not in known:
        raise ValueError(unknown_name(f"{_KEY}.kv_cache_quant_algo", str(algorithm), known))
    return known[str(algorithm).upper()]


def _integers(found: Config, *, zero_points: bool, pattern: bool = False) -> str:
    """Format of AWQ's and GPTQ's integers; AWQ's own files prefix their keys."""
    bits_key = "w_bit" if "w_bit" in found else "bits"
    group_key = "q_group_size" if "q_group_size" in found else "group_size"
    group = found.get(group_key, -1)
    grain = ROW if group in _UNGROUPED else _whole(found, group_key, _KEY)
    return Codes(
        _KEY, _whole(found, bits_key, _KEY), grain, zero_points=zero_points, pattern=pattern, bits_key=bits_key,
        grain_key=group_key,
    ).format  # fmt: skip


def _whole(found: Config, key: str, place: str, default: int | None = None) -> int:
    value = found.get(key, default)
    if value is None:
        raise ValueError(f"missing key {place}.{key}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{place}.{key} is {value!r}, allowed is a whole number")
    return value


def _check_block(block: object, key: str) -> None:
    if block not in (BLOCK_SIZE, f"{BLOCK_SIZE[0]}x{BLOCK_SIZE[1]}"):
        raise ValueError(f"{key} is {block!r}, allowed is {BLOCK_SIZE}")


def _objects(found: Config, key: str) -> Config:
    value = found.get(key) or {}
    if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) for inner in value.values()):
        raise ValueError(f"{_KEY}.{key} is {value!r}, allowed is an object of objects")
    return value


def _strings(value: object, key: str) -> Sequence[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{_KEY}.{key} is {value!r}, allowed is a list of names")
    return value


def _listed(found: Config, key: str) -> Names:
    return names(_strings(found.get(key, []), key), f"{_KEY}.{key}")
