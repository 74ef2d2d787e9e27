"""Settings that the explorer's tests share."""

from __future__ import annotations

import json

from lscd.explorer import words
from lscd.explorer.state import DENSE, State, engine_names, format_names, joined
from lscd.explorer.view import NOTHING, Files, view
from perfmodel.serving.systems import HOST, VLLM

# Each engine as it is, and two with everything that they can read weights with.
SYSTEMS = tuple(
    dict.fromkeys(
        [joined(engine, DENSE) for engine in engine_names()]
        + [joined(engine, name) for engine in (HOST, VLLM) for name in format_names(unmeasured=True)]
    )
)


def facts(state: State, files: Files = NOTHING) -> dict[str, words.Fact]:
    return {fact.name: fact for fact in words.facts(view(state, files))}


def drawn(chart: object) -> str:
    """A chart where a page would show it."""
    return f"<b data-chart={chart.name}></b>"  # type: ignore[attr-defined]


# A model of eight layers of Llama's kind whose name is no name, and what pruning left in each of its layers.
CONFIG = json.dumps(
    {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "_name_or_path": "own/<b>llama</b>",
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 8, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
        "hidden_act": "silu", "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }
)  # fmt: skip
CENSUS = "layer,matrix,sparsity\n" + "".join(
    f"{layer},{name},{0.5 + 0.05 * layer:.2f}\n" for layer in range(8) for name in ("qkv", "mlp-in", "mlp-out")
)
