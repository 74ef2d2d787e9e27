"""Calibrated pruning: each layer judged on what the pruned layers before it give, by sums counted once an input."""

from __future__ import annotations

import numpy as np
import pytest

from kernels_numba.checkpoints.pruning import Allocation, Method, PruningRule, magnitudes, smallest_of_rows
from kernels_numba.checkpoints.sparsegpt import inverse_factor, sparsegpt
from kernels_numba.decoder import calibrate
from kernels_numba.decoder.calibrate import Inputs, owl_shares, prune_decoder
from kernels_numba.decoder.config import DecoderConfig
from kernels_numba.decoder.model import Decoder
from kernels_numba.formats import Element
from tests.kernels_numba.decoder.models import CONFIGS, LLAMA, weights_of

TOKENS = np.random.default_rng(3).integers(0, 61, (9, 20))


def decoder_of(kind: str) -> Decoder:
    return Decoder(DecoderConfig.from_dict(CONFIGS[kind]), weights_of(CONFIGS[kind]))


def matrices(decoder: Decoder) -> list[str]:
    return [name for index in range(decoder.config.layers) for name in decoder.config.matrices(index)]


def zeros(decoder: Decoder) -> dict[str, int]:
    return {name: int((decoder.weights[name] == 0).sum()) for name in matrices(decoder)}


def inputs_of(decoder: Decoder, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Input (k, tokens) of every matrix, kept whole."""
    seen: dict[str, np.ndarray] = {}
    decoder.forward(tokens, observe=lambda name, x: seen.update({name: x.copy()}))
    return seen


@pytest.mark.parametrize("method", [Method.WANDA, Method.SPARSEGPT])
@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_each_matrix_is_pruned_by_inputs_that_pruned_layers_give(
    monkeypatch: pytest.MonkeyPatch, kind: str, method: Method
) -> None:
    """The straightforward way: for each layer, run the model pruned so far and prune by what the layer was given."""
    monkeypatch.setattr(calibrate, "TOKENS_AT_ONCE", 60)  # three sequences
    dense, expected = decoder_of(kind), decoder_of(kind)
    for index in range(dense.config.layers):
        seen = inputs_of(expected, TOKENS)
        for name, (m, k) in dense.config.matrices(index).items():
            weights, x = dense.weights[name], seen[name].astype(np.float64)
            if method is Method.WANDA:
                gone = smallest_of_rows(magnitudes(weights, np.linalg.norm(x, axis=1)), round(0.4 * k))
                expected.weights[name] = np.where(gone, np.float32(0), weights)
            else:
                expected.weights[name] = sparsegpt(weights, inverse_factor(x @ x.T), round(0.4 * m * k))
    found = prune_decoder(dense, PruningRule(method, 0.4), TOKENS)
    for name in matrices(dense):
        np.testing.assert_array_equal(found.weights[name] == 0, expected.weights[name] == 0, err_msg=name)
        np.testing.assert_allclose(found.weights[name], expected.weights[name], atol=2e-3, err_msg=name)
    assert all(dense.weights[name] is not found.weights[name] for name in matrices(dense))
    assert not any(zeros(dense).values()), "the decoder given stays as it is"


def test_matrices_that_share_an_input_share_its_sums() -> None:
    x, y = np.array([[1, 2], [0, 2]], np.float32), np.array([[3, 0], [1, 1]], np.float32)
    inputs = Inputs(products=True)
    later = x.copy()  # of other sequences
    for name, given in (("q", x), ("k", x), ("o", y), ("q", later), ("k", later)):
        inputs.observe(name, given)
    np.testing.assert_allclose(inputs.norms("k"), np.sqrt([2 * (1 + 4), 2 * 4]), rtol=1e-6)
    np.testing.assert_allclose(inputs.norms("o"), np.sqrt([9, 2]), rtol=1e-6)
    assert inputs.factor("q") is inputs.factor("k") is not inputs.factor("o")


RULES = {
    "magnitude": PruningRule(Method.MAGNITUDE, 0.6),
    "erk": PruningRule(Method.SPARSEGPT, 0.6, allocation=Allocation.ERK),
    "random": PruningRule(Method.RANDOM, 0.3),
    "sparsegpt": PruningRule(Method.SPARSEGPT, 0.6),
    "owl": PruningRule(Method.SPARSEGPT, 0.6, allocation=Allocation.OWL),
    "owl, magnitude": PruningRule(Method.MAGNITUDE, 0.6, allocation=Allocation.OWL),
    "owl, wanda": PruningRule(Method.WANDA, 0.5, allocation=Allocation.OWL),
    "nm": PruningRule(Method.NM, 0.75, 1, 4),
    "sparsegpt nm": PruningRule(Method.SPARSEGPT, 0.5, 2, 4),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_counts_patterns_and_the_mean_are_exact(rule: PruningRule) -> None:
    dense = decoder_of("llama3")
    found = prune_decoder(dense, rule, TOKENS)
    sizes = {name: dense.weights[name].size for name in matrices(dense)}
    gap = 0.5 * sum(len(dense.weights[name]) if rule.method is Method.WANDA else 1 for name in sizes)
    assert sum(zeros(found).values()) == pytest.approx(rule.sparsity * sum(sizes.values()), abs=gap)
    if rule.allocation is Allocation.UNIFORM:
        assert zeros(found) == {name: round(rule.sparsity * size) for name, size in sizes.items()}
    if rule.pattern is not None:
        assert all(((found.weights[name].reshape(-1, rule.group) != 0).sum(1) == rule.keep).all() for name in sizes)


def test_owl_gives_a_layer_of_outliers_fewer_zeros() -> None:
    decoder = decoder_of("llama")
    for name in decoder.config.matrices(1):
        decoder.weights[name] = decoder.weights[name].copy()
        decoder.weights[name][:, 0] *= 30
    shapes = {name: decoder.weights[name].shape for name in matrices(decoder)}
    shares = owl_shares(decoder, 0.6, TOKENS, shapes)
    assert {round(shares[name], 12) for name in decoder.config.matrices(0)} == {0.68}
    assert {round(shares[name], 12) for name in decoder.config.matrices(1)} == {0.52}


def test_weights_are_rounded_to_what_the_file_stores() -> None:
    dense = decoder_of("llama")
    first, second, *_ = matrices(dense)
    found = prune_decoder(
        dense, PruningRule(Method.SPARSEGPT, 0.5), TOKENS, [first, second], elements={first: Element.BFLOAT16}
    )
    assert not (found.weights[first].view(np.uint32) & 0xFFFF).any()
    assert (found.weights[second].view(np.uint32) & 0xFFFF).any()
    assert [name for name in dense.weights if dense.weights[name] is not found.weights[name]] == [first, second]


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (PruningRule(Method.WANDA, 0.5), {}, "tokens to calibrate wanda: none; allowed: some"),
        (PruningRule(Method.MAGNITUDE_GLOBAL, 0.5), {}, "method: magnitude-global; allowed: those that prune matrix"),
        (PruningRule(Method.MAGNITUDE, 0.5), {"names": ["lm_head.weight"]}, "'lm_head.weight': no matrix of a layer"),
        (PruningRule(Method.NM, 0.6, 2, 5), {}, r"q_proj.weight': columns: 32; allowed: a multiple of 5"),
        (PruningRule(Method.WANDA, 0.5), {"tokens": TOKENS[:0]}, r"shape of tokens: \(0, 20\)"),
    ],
)
def test_what_cannot_be_pruned_is_refused(rule: PruningRule, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_decoder(Decoder(DecoderConfig.from_dict(LLAMA), weights_of(LLAMA)), rule, **options)
