"""Entropy-coded BF16: the code by hand, sampled weights, and published sizes of checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.formats import FORMATS
from perfmodel.formats.entropy import binade_probabilities, exponent_bits, huffman_bits


def test_huffman_by_hand() -> None:
    assert huffman_bits([0.4, 0.3, 0.2, 0.1]) == pytest.approx(0.4 + 2 * 0.3 + 3 * 0.3)
    assert huffman_bits([1.0]) == 0


def test_the_standard_deviation_hardly_matters() -> None:
    bits = [huffman_bits(binade_probabilities(sigma)) for sigma in (0.02, 0.04, 0.011, 0.3)]
    assert bits == pytest.approx([exponent_bits()] * 4, rel=0.01)
    assert bits[0] == pytest.approx(bits[1], rel=1e-9)  # twice of it: the same binades
    assert sum(binade_probabilities(0.02)) == pytest.approx(1)


def bf16_exponents(weights: np.ndarray) -> np.ndarray:
    return weights.astype(np.float32).view(np.uint32) >> 23 & 0xFF


def test_bytes_by_hand() -> None:
    codes = np.ceil(512 * 1024 * exponent_bits() / 8)
    blocks = np.ceil(codes / 4096)
    expected = 512 * 1024 + codes + blocks * 320 + 4 * (blocks + 1) + 5 * 256
    assert float(FORMATS["df11"].bytes(512, 1024)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.013, 0.02, 0.05])
def test_bytes_meet_those_of_sampled_weights(sigma: float) -> None:
    exponents = bf16_exponents(np.random.default_rng(8).normal(0, sigma, (512, 1024)))
    counts = np.unique(exponents, return_counts=True)[1]
    codes = np.ceil(huffman_bits(counts / exponents.size) * exponents.size / 8)
    blocks = np.ceil(codes / 4096)
    arrays = (exponents.size, codes, np.ceil(blocks * 512 * 5 / 8), 4 * (blocks + 1))
    assert sum(arrays) == pytest.approx(float(FORMATS["df11"].bytes(512, 1024)), rel=0.005)


@pytest.mark.parametrize(
    ("bf16_gb", "df11_gb"),
    [
        (16.06, 10.90),  # Llama 3.1 8B
        (141, 95.4),  # Llama 3.3 70B
        (812, 551),  # Llama 3.1 405B
        (29.5, 20.1),  # Qwen 3 14B
    ],
)
def test_published_sizes(bf16_gb: float, df11_gb: float) -> None:
    # Zhang et al., arXiv 2504.11651, and their poster at NeurIPS 2025.
    ours = float(FORMATS["df11"].bits_per_weight(4096, 14336)) / 16
    assert ours == pytest.approx(df11_gb / bf16_gb, rel=0.02)


def test_nothing_is_lost() -> None:
    assert FORMATS["df11"].change == "lossless"
