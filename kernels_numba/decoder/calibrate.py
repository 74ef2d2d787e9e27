"""Pruning by what weights are multiplied with: layer by layer, each on the outputs of the layers pruned before it.

Memory holds the model twice as float32, the hidden states of all calibration tokens, and of one layer each input's
norms (k,) or, for SparseGPT, its Gram matrix (k, k).

References
----------
Frantar, Alistarh, "SparseGPT", ICML 2023, section 4. Sun et al., "Wanda", ICLR 2024, section 4. Both prune a layer with
the inputs the dense layer sees behind pruned ones, then compute its outputs anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels_numba.checkpoints.allocation import outlier_share, owl_sparsities, zeros_by_matrix
from kernels_numba.checkpoints.pruning import (
    Allocation,
    Method,
    PruningRule,
    magnitudes,
    mask_by,
    random_scores,
)
from kernels_numba.checkpoints.sparsegpt import inverse_factor, sparsegpt
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.load import as_array
from kernels_numba.decoder.model import Decoder, Float
from kernels_numba.formats import Element
from kernels_numba.formats.encoded import check, narrowed, widened

TOKENS_AT_ONCE = 4096  # that pass through a layer together
BY_INPUT = (Method.WANDA, Method.NM, Method.SPARSEGPT)  # judge a weight by its input, if that is known
Progress = Callable[[str], None]
Tokens = NDArray[np.integer[Any]]


class Inputs:
    """Sums over tokens of what a layer's matrices are multiplied with, one for all matrices that share an input.

    Parameters
    ----------
    products : whether to sum all products ``X X^T`` (k, k) instead of the squares (k,).
    """

    def __init__(self, *, products: bool) -> None:
        self._products = products
        self._sums: dict[str, Float] = {}
        self._owner: dict[str, str] = {}  # name whose sums a matrix shares
        self._factors: dict[str, NDArray[np.float64]] = {}
        self._latest: tuple[str, Float] | None = None

    def observe(self, name: str, x: Float) -> None:
        """Add the inputs x (k, n) of matrix ``name``, unless the matrix before was given the same array."""
        if self._latest is None or x is not self._latest[1]:
            self._latest = (name, x)
            sums = x @ x.T if self._products else np.einsum("kn,kn->k", x, x)
            self._sums[name] = self._sums.get(name, np.float32(0)) + sums
        self._owner[name] = self._latest[0]

    def factor(self, name: str) -> NDArray[np.float64]:
        """What SparseGPT needs to know of the inputs of a matrix, computed once for those that share them."""
        owner = self._owner[name]
        if owner not in self._factors:
            self._factors[owner] = inverse_factor(self._sums[owner])
        return self._factors[owner]

    def norms(self, name: str) -> Float:
        """L2 norm (k,) of each input of a matrix."""
        sums = self._sums[self._owner[name]]
        return np.sqrt(np.diag(sums) if self._products else sums)


def prune_decoder(
    decoder: Decoder,
    rule: PruningRule,
    tokens: Tokens | None = None,
    names: Sequence[str] | None = None,
    *,
    elements: Mapping[str, Element] | None = None,
    progress: Progress = lambda name: None,
) -> Decoder:
    """Decoder with pruned matrices; ``decoder`` stays as it is, and both share what is not pruned.

    Parameters
    ----------
    tokens : (sequences, length) to calibrate on; ignored by rules that need none, but for N:M, which then prunes by
        magnitude times input norm as Wanda does.
    names : matrices of layers to prune, all by default.
    elements : number format in which pruned weights are stored, and to which they are rounded; float32 by default.
    progress : called with each layer's name, for OWL twice.

    Raises
    ------
    ValueError
        If the rule needs tokens and there are none, needs all matrices at once (magnitude-global), or a name is no
        layer's matrix; if weights, inputs and pattern do not fit, naming the matrix.
    """
    check(rule.method is not Method.MAGNITUDE_GLOBAL, "method", rule.method, "those that prune matrix by matrix")
    check(tokens is not None or not rule.needs_inputs, f"tokens to calibrate {rule.method}", "none", "some")
    chosen = _chosen(decoder.config, names)
    shares = None
    if rule.allocation is Allocation.OWL and tokens is not None:
        shares = owl_shares(decoder, rule.sparsity, tokens, chosen, progress)
    zeros = zeros_by_matrix(rule, chosen, shares)
    new = Decoder(decoder.config, dict(decoder.weights), backend=decoder.backend)
    hidden = [new.embed(part) for part in _parts(tokens)] if tokens is not None and rule.method in BY_INPUT else []
    for index in range(new.config.layers):
        wanted = [name for name in new.config.matrices(index) if name in zeros]
        inputs = _seen(new, index, hidden, products=rule.method is Method.SPARSEGPT) if hidden and wanted else None
        for name in wanted:
            pruned = _pruned(as_array(new.weights[name]), rule, zeros[name], name, inputs)
            new.weights[name] = _stored(pruned, (elements or {}).get(name, Element.FLOAT32), name)
        hidden = [new.layer(index, part) for part in hidden] if index + 1 < new.config.layers else []
        progress(new.config.layer(index))
    return new


def owl_shares(
    decoder: Decoder,
    sparsity: float,
    tokens: Tokens,
    chosen: Mapping[str, tuple[int, int]],
    progress: Progress = lambda name: None,
) -> dict[str, float]:
    """Sparsity of each of the ``chosen`` matrices, the same within a layer, by the outliers of the dense decoder."""
    hidden = [decoder.embed(part) for part in _parts(tokens)]
    layers, outliers = [], []
    for index in range(decoder.config.layers):
        inputs = Inputs(products=False)
        hidden = [decoder.layer(index, part, observe=inputs.observe) for part in hidden]
        if names := [name for name in decoder.config.matrices(index) if name in chosen]:
            layers.append(names)
            outliers.append(outlier_share([magnitudes(as_array(decoder.weights[x]), inputs.norms(x)) for x in names]))
        progress(decoder.config.layer(index))
    sizes = [sum(math.prod(chosen[name]) for name in names) for names in layers]
    found = owl_sparsities(outliers, sizes, sparsity)
    return {name: float(share) for names, share in zip(layers, found, strict=True) for name in names}


def _chosen(config: DecoderConfig, names: Sequence[str] | None) -> dict[str, tuple[int, int]]:
    """Shapes of the matrices to prune."""
    shapes = config.all_matrices
    for name in names or ():
        check(name in shapes, f"tensor {name!r}", "no matrix of a layer", f"matrices such as {next(iter(shapes))}")
    return {name: shapes[name] for name in (shapes if names is None else names)}


def _seen(decoder: Decoder, index: int, hidden: Sequence[Float], *, products: bool) -> Inputs:
    """What the matrices of a layer are given by these hidden states."""
    inputs = Inputs(products=products)
    for part in hidden:
        decoder.layer(index, part, observe=inputs.observe)
    return inputs


def _pruned(weights: Float, rule: PruningRule, zeros: int, name: str, inputs: Inputs | None) -> Float:
    """One matrix, pruned."""
    try:
        if rule.method is Method.SPARSEGPT and inputs is not None:
            return sparsegpt(weights, inputs.factor(name), zeros, rule.pattern)
        scores = magnitudes(weights, inputs.norms(name) if inputs is not None else None)
        if rule.method is Method.RANDOM:
            scores = random_scores((weights.shape[0], weights.shape[1]), rule.seed, name)
        return np.where(mask_by(rule, scores, zeros), np.float32(0), weights)
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from None


def _stored(weights: Float, element: Element, name: str) -> Float:
    """Weights rounded to what a file stores."""
    rounded = widened(narrowed(weights, element), element)
    check(np.isfinite(rounded).all(), f"tensor {name!r} as {element}", "overflows", "a checkpoint of wider weights")
    return rounded


def _parts(tokens: Tokens) -> list[Tokens]:
    """Sequences in groups that pass through a layer together."""
    check(tokens.ndim == 2 and tokens.size > 0, "shape of tokens", tokens.shape, "(sequences, length), at least one")
    height = max(1, TOKENS_AT_ONCE // tokens.shape[1])
    return [tokens[first : first + height] for first in range(0, len(tokens), height)]
