"""A GGUF file as a Hugging Face folder: model.safetensors, config.json, tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kernels_numba.checkpoints.float_values import DTYPES, in_dtype
from kernels_numba.checkpoints.folders import WEIGHTS, new_folder, write_json
from kernels_numba.checkpoints.gguf_reader import GgufModel
from kernels_numba.checkpoints.safetensors_writer import header_room, written
from kernels_numba.checkpoints.tokenizer import gguf_tokenizer, special_tokens
from kernels_numba.formats.encoded import check


def import_gguf(
    model: GgufModel,
    folder: str | Path,
    dtype: str = "float16",
    progress: Callable[[str], None] = lambda name: None,
) -> int:
    """Bytes of the weights written to ``folder``, which appears only when it is complete.

    Parameters
    ----------
    dtype : "float16", values rounded to nearest, or "float32".

    Raises
    ------
    ValueError
        If the folder holds something, the dtype is unknown, a value overflows or the tokenizer cannot be built.
    """
    check(dtype in DTYPES, "dtype", repr(dtype), ", ".join(DTYPES))
    with new_folder(folder) as partial:
        gguf_tokenizer(model).save(str(partial / "tokenizer.json"))
        chat = model.fields.get("tokenizer.chat_template")
        described = special_tokens(model) | ({"chat_template": chat} if chat else {})
        write_json(partial / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **described})
        write_json(partial / "config.json", model.config | {"dtype": dtype})
        size = _write_weights(model, partial / WEIGHTS, dtype, progress)
    return size


def _write_weights(model: GgufModel, target: Path, dtype: str, progress: Callable[[str], None]) -> int:
    shapes = model.shapes
    with written(target, header_room((name, len(shape)) for name, shape in shapes.items())) as out:
        out.metadata = {"format": "pt"}
        for name, shape in shapes.items():
            out.add(name, DTYPES[dtype], shape, [in_dtype(model.read(name), dtype, f"{model.path}: tensor {name!r}")])
            progress(name)
    return sum(stop - start for start, stop in (entry["data_offsets"] for entry in out.entries.values()))
