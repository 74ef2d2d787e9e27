"""The decoder: tokens in, scores of the next token out, every matrix product on weights of whatever format.

Activations are (features, sequences, tokens) float32, so that a product sees them as X (k, n) with n = sequences x
tokens, as everywhere here: C[m, n] = A[m, k] @ X[k, n].

References
----------
Touvron et al., "LLaMA", 2023. Zhang et al., "OPT: Open Pre-trained Transformer Language Models", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.cpu import kernels as cpu
from kernels_numba.cpu.bitmap import CpuBitmap
from kernels_numba.decoder.attention import attend, rotate, rotation
from kernels_numba.decoder.cache import KvCache
from kernels_numba.decoder.config import HEAD, NORMS, OPT_OFFSET, DecoderConfig, Family, bias_of
from kernels_numba.decoder.layers_njit import attend_one, attend_one_alone, normalise, round_to_bfloat16
from kernels_numba.formats import Element, EncodedWeight
from kernels_numba.formats.encoded import check
from kernels_numba.spmm import spmm

Float = NDArray[np.float32]
Weight = EncodedWeight | Float
Observer = Callable[[str, Float], None]
Group = tuple[tuple[str, ...], str]  # weights that multiply the same input, and their name as one


class Decoder:
    """A language model of one of the families of `DecoderConfig`.

    Parameters
    ----------
    weights : float32 arrays or encoded weights by Hugging Face name; an entry may be replaced between calls. The
        embedding, biases and norms are arrays. A tied head is the embedding unless there is a ``lm_head.weight``.
        Those that multiply the same input may be one, under the name that `DecoderConfig.inputs` gives it.
    backend : where encoded weights are multiplied, as in `spmm`; arrays are NumPy's. On the CPU activations are
        float32, but for a `CpuBitmap` of bfloat16, which meets activations rounded to it.
    """

    def __init__(self, config: DecoderConfig, weights: dict[str, Weight], *, backend: str = "cpu") -> None:
        self.config, self.weights, self.backend = config, weights, backend
        self._cos, self._sin = rotation(config)
        self._groups: list[list[Group]] = [list(config.inputs(index).items()) for index in range(config.layers)]
        self._no_bias = np.zeros(config.hidden, np.float32)

    @property
    def head(self) -> str:
        """Name of the weight that gives the scores."""
        return HEAD if HEAD in self.weights else self.config.embedding

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one decoding step reads: every layer and the head."""
        layers = [name for name in self.weights if ".layers." in name]
        return sum(self.weights[name].nbytes for name in [*layers, self.head])

    def embed(self, tokens: NDArray[np.integer[Any]], start: int = 0) -> Float:
        """Hidden states (hidden, B, T) of tokens (B, T), the first at position ``start``.

        Raises
        ------
        ValueError
            If a token is outside the vocabulary, or a position beyond the model's.
        """
        stop, config = start + tokens.shape[1], self.config
        check(tokens.size > 0, "tokens", tokens.shape, "(B, T), at least one")
        check(
            tokens.min() >= 0 and tokens.max() < config.vocabulary,
            "token",
            _range(tokens),
            f"0 to {config.vocabulary - 1}",
        )
        check(stop <= config.positions, "tokens of a sequence", stop, f"at most {config.positions}")
        hidden = self._array(config.embedding)[tokens]
        if config.family is Family.OPT:
            rows = slice(start + OPT_OFFSET, stop + OPT_OFFSET)
            hidden = hidden + self._array(f"{config.stem}embed_positions.weight")[rows]
        return np.ascontiguousarray(np.moveaxis(hidden, -1, 0))

    def layer(self, index: int, hidden: Float, cache: KvCache | None = None, observe: Observer | None = None) -> Float:
        """Hidden states (hidden, B, T) after layer ``index``; each token attends to itself and those before it.

        Parameters
        ----------
        cache : keys and values of the tokens before these; without one, these are the first of their sequences.
        observe : called with the name of a weight and its input (k, B x T) before each product; weights that share
            an input get the same array.
        """
        stem = self.config.layer(index)
        attention, feed_forward = (f"{stem}{norm}" for norm in NORMS[self.config.family])
        hidden = hidden + self._attention(index, self._norm(attention, hidden), cache, observe)
        return hidden + self._feed_forward(index, self._norm(feed_forward, hidden), observe)

    def logits(self, hidden: Float) -> Float:
        """Scores (vocabulary, B, T) of the next token after each of the hidden states (hidden, B, T)."""
        last = self._norm(self.config.final_norm, hidden)
        return self._product(((self.head,), self.head), last, None)

    def forward(
        self,
        tokens: NDArray[np.integer[Any]],
        cache: KvCache | None = None,
        observe: Observer | None = None,
        *,
        last_only: bool = False,
    ) -> Float:
        """Scores (B, T, vocabulary) of the token after each of tokens (B, T); of the last alone, (B, 1, vocabulary).

        Errors as `embed` and `KvCache.extend`.
        """
        hidden = self.embed(tokens, cache.length if cache is not None else 0)
        for index in range(self.config.layers):
            hidden = self.layer(index, hidden, cache, observe)
        if cache is not None:
            cache.advance(tokens.shape[1])
        scores = self.logits(hidden[:, :, -1:] if last_only else hidden)
        return np.moveaxis(scores, 0, -1)

    def _attention(self, index: int, x: Float, cache: KvCache | None, observe: Observer | None) -> Float:
        config, (_, batch, new), (ins, out, *_) = self.config, x.shape, self._groups[index]
        stacked = self._product(ins, x, observe)
        start = cache.length if cache is not None else 0
        if cache is not None and new == 1:
            mixed = np.empty((config.heads * config.head_dim, batch), np.float32)
            room = cache.room(index, batch, new)
            attend_now = attend_one_alone if isinstance(self.weights[out[1]], np.ndarray) else attend_one
            attend_now(stacked.reshape(-1, batch), self._cos[start], self._sin[start], *room, start, mixed)
        else:
            parts = stacked.reshape(-1, config.head_dim, batch, new).transpose(2, 0, 3, 1)  # (B, heads, T, head_dim)
            queries, keys, values = np.split(parts, (config.heads, config.heads + config.kv_heads), axis=1)
            turn = self._cos[start : start + new], self._sin[start : start + new]
            queries, keys = rotate(queries, *turn), rotate(keys, *turn)
            if cache is not None:
                keys, values = cache.extend(index, keys, values)
            mixed = attend(queries, keys, values).transpose(1, 3, 0, 2)
        return self._product(out, mixed.reshape(-1, batch, new), observe)

    def _feed_forward(self, index: int, x: Float, observe: Observer | None) -> Float:
        *_, ins, out = self._groups[index]
        inner = self._product(ins, x, observe)
        inner = _gated(*np.split(inner, 2)) if self.config.family is Family.LLAMA else np.maximum(inner, 0)
        return self._product(out, inner, observe)

    def _norm(self, name: str, x: Float) -> Float:
        """RMSNorm, or LayerNorm, over the features."""
        flat = np.ascontiguousarray(x).reshape(x.shape[0], -1)
        bias = self._array(f"{name}.bias") if f"{name}.bias" in self.weights else self._no_bias
        centred, out = self.config.family is Family.OPT, np.empty_like(flat)
        normalise(flat, self._array(f"{name}.weight"), bias, centred, self.config.norm_epsilon, out)
        return out.reshape(x.shape)

    def _product(self, group: Group, x: Float, observe: Observer | None) -> Float:
        """Weights times x (k, B, T), biases added: (m, B, T), the rows of one weight below those of another."""
        names, one = group
        flat = np.ascontiguousarray(x).reshape(x.shape[0], -1)
        if observe is not None:
            for name in names:
                observe(name, flat)
        parts = [self._times(name, flat) for name in ((one,) if one in self.weights else names)]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1, *x.shape[1:])

    def _times(self, name: str, x: Float) -> Float:
        weight = self.weights[name]
        out: Float
        if isinstance(weight, np.ndarray):
            out = weight @ x
        elif self.backend == "cpu" and isinstance(weight, CpuBitmap) and weight.element is Element.BFLOAT16:
            bits = np.empty(x.shape, np.uint16)
            round_to_bfloat16(x.reshape(-1).view(np.uint32), bits.reshape(-1))
            out = cpu.spmm(weight, bits, element=Element.BFLOAT16)
        elif self.backend == "cpu":
            out = cpu.spmm(weight, x)
        else:
            out = spmm(weight, x, backend=self.backend, out_dtype=np.float32)
        bias = bias_of(name)
        return out + self._array(bias)[:, None] if bias in self.weights else out

    def _array(self, name: str) -> Float:
        found = self.weights[name]
        check(isinstance(found, np.ndarray), f"weight {name}", type(found).__name__, "an array: it is not multiplied")
        return found  # type: ignore[return-value]


def _gated(gate: Float, up: Float) -> Float:
    """SiLU of ``gate`` times ``up``; x / (1 + exp(-x)) is written with tanh, which NumPy vectorises."""
    out = np.tanh(gate * np.float32(0.5))
    out += 1
    out *= gate
    out *= up
    out *= np.float32(0.5)
    return out


def _range(tokens: NDArray[np.integer[Any]]) -> str:
    return f"{tokens.min()} to {tokens.max()}"
