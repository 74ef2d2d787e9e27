"""The keys of a Hugging Face configuration: read within their range, remembered, refused by name if nobody reads them.

A key that no family reads is harmless if it belongs to `_HARMLESS`, which changes neither the number nor the size of
any matrix, cache or state; any other one that says something could change the shape, so that it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perfmodel.catalog.records import LARGEST_SIZE

Config = Mapping[str, Any]

MOST_LAYERS = 2**14
UNLIMITED = 2**20  # positions of a model whose state has a fixed size
# What families call the same thing; the first that a configuration holds counts.
_NAMES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_position_embeddings": (
        "max_position_embeddings", "max_sequence_length", "n_positions", "max_seq_len", "seq_length",
        "model_max_length", "max_seq_length",
    ),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"),
    "n_shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
    "sliding_window": ("sliding_window", "sliding_window_size"),
    "num_nextn_predict_layers": ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"),
}  # fmt: skip
# Keys that change no shape, by what they are about; each entry is a pattern of the whole key.
_HARMLESS = re.compile(
    "|".join(
        (
            # how the file was made, which class reads it, in what precision it is kept
            r"architectures|auto_map|model_type|transformers_version|.*dtype|_?name(_or_path)?|_commit_hash|model_version",
            r"_attn_implementation.*|_flash_attn_2_enabled|_from_model_config|torchscript|use_bfloat16|fp16|bf16|fp32",
            r"quantization_config|compression_config|quantization_bit|kv_cache_scheme|tokenizer_\w+|unsloth_\w+",
            # classification, generation, outputs
            r"_?num_labels|id2label|label2id|problem_type|task_specific_params|prefix|finetuning_task|pruned_heads",
            r"classifier.*|summary_.*|output_.*|return_dict.*|use_cache|use_cache_.*|keys_to_ignore_at_inference",
            r"max_length|min_length|do_sample|early_stopping|num_beams|num_beam_groups|num_return_sequences",
            r"temperature|top_[kp]|typical_p|.*_penalty|.*no_repeat_ngram_size|forced_.*|(begin_)?suppress_tokens",
            r"bad_words_ids|remove_invalid_values|generation_config|num_logits_to_keep|is_decoder|is_encoder_decoder",
            # tokens, other towers
            r".*_tokens?(_(id|ids|index))?|(bos|eos|pad|eod|sep|unk|mask|(text|im|video|audio)_\w+)_id|mask_init_id",
            r".*(vision|visual|image|video|audio).*|text_config|vit_.*|mm_.*|anyres_.*|xdrope_.*|dense_list",
            # positions
            r"(use_|default_)?(m?rope|rotary|yarn|ntk|dynamic_ntk|partial_rotary).*|.*_rope_(theta|freq)|use_rope_\w+",
            r"(original_max_position|initial_context)_\w+|original_rope|position_embedding_type|alibi.*|use_alibi|offset_alibi|xpos_.*",
            r"rope_.*|indexer_rope_interleave|no_rope_layers?.*|.*_xdrope|interpolate_factor",
            # training
            r".*dropout.*|.*_pdrop|.*layerdrop|(w_|weight_)?init(_.*|ializer.*)?|.*_init_(std|method|scheme)|init_device",
            r".*aux_loss.*|.*z_?loss.*|.*loss_(weight|coef\w*)|.*jitter.*|gradient_checkpointing|recompute.*|seq_aux",
            r"pretraining_tp|ep_size|tensor_parallel.*|sequence_parallel|neftune_.*|bias_update_.*|use_mup",
            # scalars inside a layer
            r"(.*_)?eps(ilon)?|(.*_)?act(ivation)?(_(fn|func|function))?|hidden_activation|.*_multipliers?|.*soft_?cap(ping)?",
            r"logit_scale|logits_scaling|query_pre_attn_scalar|softmax_scale|attn_scale|floor_scale|attn_temperature_tuning",
            r"attention_value_scale|swiglu_(limit|alpha)|clip_qkv|mscale.*|.*_(alpha|beta)(_factor)?|scale_(emb|depth)",
            # routing
            r"(moe_)?router_.*|norm_topk_prob|routed_scaling_factor|scoring_func|score_function|topk_(method|group)",
            r"n_group|num_expert_group|moe_renormalize|use_grouped_topk|expert_selection_fn|moe_normalize_expert_weights",
            r"moe_(gate|gate_act|capacity|norm_min|use_aux_free|drop_tokens|shared_expert_overlap|random_routing_\w+)",
            # kernels
            r"use_.*flash.*|flash_attn.*|attn_impl.*|.*_in_fp32|reorder_and_upcast_attn|scale_attn_.*|masked_softmax_fusion",
            r"bias_dropout_fusion|slow_but_exact|skip_bias_add.*|apply_query_key_layer_scaling|chunk_size_feed_forward",
            r"(mamba_)?chunk_size|use_.*kernels?|use_associative_scan|use_mambapy|use_mem_eff_path|tf_legacy_loss|fuse_.*|pad_key_length|pre_allocate_kv_cache|validate_runner_input",
            # order and range inside a layer or a recurrence
            r"apply_residual_connection_post_layernorm|rescale_prenorm_residual|time_step_.*|mamba_dt_.*|(mamba_)?hidden_act",
            r"(mamba_)?norm_before_gate|postnorm|tie_encoder_decoder|n_ctx",
        )
    )
)


def names_of(key: str) -> tuple[str, ...]:
    """Every name under which families keep ``key``."""
    return _NAMES.get(key, (key,))


class Keys:
    """A configuration that remembers what was read of it.

    Reading a key of several names reads them all; a null is as good as no key, but for `nullable`.
    """

    def __init__(self, config: Config, within: str = "") -> None:
        self._config = {key: value for key, value in config.items() if value is not None}
        self._nulls = {key for key, value in config.items() if value is None}
        self._within = within
        self._read: set[str] = set()
        self._nested: list[Keys] = []

    def __contains__(self, key: str) -> bool:
        """Whether the configuration says something of this key."""
        return self._name(key) in self._config

    def _name(self, key: str) -> str:
        names = names_of(key)
        self._read.update(names)
        return next((name for name in names if name in self._config), names[0])

    def get(self, key: str, default: Any = None) -> Any:
        """Value of any kind; ``default`` if there is none."""
        return self._config.get(self._name(key), default)

    def shown(self, key: str) -> str:
        """Name of the key in messages."""
        return self._within + self._name(key)

    def size(self, key: str, default: int | None = None) -> int:
        """Positive integer; required if there is no ``default``."""
        return self._whole(key, default, least=1)

    def count(self, key: str, default: int | None = 0) -> int:
        """Integer of at least 0."""
        return self._whole(key, default, least=0)

    def _whole(self, key: str, default: int | None, least: int) -> int:
        name = self._name(key)
        if name not in self._config:
            if default is None:
                raise KeyError(self._within + name)
            return default
        value = self._config[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST_SIZE:
            kind = "a positive integer" if least else "an integer of at least 0"
            raise ValueError(f"{self.shown(key)} is {value!r}, allowed is {kind} of at most 2**40")
        return value

    def nullable(self, key: str, default: int | None = None) -> int | None:
        """Positive integer, or None where the configuration says null or 0; ``default`` where it says nothing."""
        if key in self._nulls or self.get(key) == 0:
            return None
        return self.size(key) if key in self else default

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.shown(key)} is {value!r}, allowed is true or false")
        return value

    def layers(self) -> int:
        """Number of layers."""
        layers = self.size("num_hidden_layers")
        if layers > MOST_LAYERS:
            raise ValueError(f"{self.shown('num_hidden_layers')} is {layers}, allowed is at most {MOST_LAYERS}")
        return layers

    def of_layers(self, key: str, allowed: Sequence[Any]) -> tuple[Any, ...] | None:
        """One of the ``allowed`` for each layer; None if the configuration does not say."""
        given = self.get(key)
        if given is None:
            return None
        values = tuple(given) if isinstance(given, list | tuple | str) else ()
        if len(values) != self.layers():
            counted = f"{len(values)} entries" if values else repr(given)
            raise ValueError(f"{self.shown(key)} has {counted}, allowed is one for each of {self.layers()} layers")
        for value in values:
            if value not in allowed:
                raise ValueError(f"{self.shown(key)} holds {value!r}, allowed are {', '.join(map(str, allowed))}")
        return values

    def indices(self, key: str, default: Iterable[int] = ()) -> frozenset[int]:
        """Numbers of layers, from 0."""
        given = self.get(key, list(default))
        if not isinstance(given, list | tuple) or not all(isinstance(index, int) for index in given):
            raise ValueError(f"{self.shown(key)} is {given!r}, allowed is a list of layers")
        return frozenset(given)

    def nested(self, key: str) -> Keys:
        """The keys of an object inside; empty if there is none."""
        given = self.get(key, {})
        if not isinstance(given, Mapping):
            raise ValueError(f"{self.shown(key)} is {given!r}, allowed is an object of keys")
        inside = Keys(given, within=f"{self.shown(key)}.")
        self._nested.append(inside)
        return inside

    def same(self, key: str, only: Any) -> None:
        """Refuse a value other than ``only``."""
        if (value := self.get(key, only)) != only:
            raise ValueError(f"{self.shown(key)} is {value!r}, allowed is {only!r}")

    def ignore(self, *keys: str) -> None:
        """Keys that this family knows and that change nothing in it."""
        self._read.update(name for key in keys for name in names_of(key))

    def refuse_unread(self, model_type: str) -> None:
        """Refuse the first key that says something, is not harmless and was not read."""
        for key, value in self._config.items():
            empty = value is False or value in (0, "", [], {})
            if not (empty or key in self._read or _HARMLESS.fullmatch(key)):
                shown = value if isinstance(value, int | float | str) else type(value).__name__
                raise ValueError(f"key '{self._within}{key}' is {shown!r}: not understood by model_type '{model_type}'")
        for inside in self._nested:
            inside.refuse_unread(model_type)
