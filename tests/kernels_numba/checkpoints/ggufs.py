"""Small GGUF files that tests write, as llama.cpp's converter would of a Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

BYTES = [chr(code) for code in range(33, 127)]  # how byte-level BPE writes these bytes; a space is Ġ
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = [*SPECIAL, *BYTES, "Ġ", "Ċ", "he", "ll", "hell", "hello", "Ġhello", "12"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2"]


def write_gguf(
    path: Path,
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    *,
    architecture: str = "llama",
    quantised: bool = False,
    **fields: Any,
) -> Path:
    """A file of a Llama-like model; ``quantised`` stores matrices as Q8_0; ``fields`` are more of text or bools."""
    out = gguf.GGUFWriter(path, architecture)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_theta"])
    _add_tokenizer(out)
    for key, value in fields.items():
        (out.add_bool if isinstance(value, bool) else out.add_string)(key.replace("__", "."), value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, values in weights.items():
        stored = values
        for part, heads in (("q_proj", config["num_attention_heads"]), ("k_proj", config["num_key_value_heads"])):
            if part in name:  # as LlamaModel.permute
                stored = stored.reshape(heads, 2, -1, *stored.shape[1:]).swapaxes(1, 2).reshape(stored.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised and values.ndim == 2 else gguf.GGMLQuantizationType.F32
        theirs = names.get_name(name, (".weight", ".bias"))
        out.add_tensor(theirs, gguf.quants.quantize(np.ascontiguousarray(stored), kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _add_tokenizer(out: gguf.GGUFWriter) -> None:
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(VOCABULARY)
    out.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    out.add_token_merges(MERGES)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
