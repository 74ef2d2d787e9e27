"""Pruning a file: exact counts, the right weights gone, all else untouched, nothing written when anything is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.checkpoint import prune_checkpoint, weight_matrices
from kernels_numba.checkpoints.pruning import Method, PruningRule
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from tests.kernels_numba.checkpoints.files import save

SHAPES = {"layers.0.up.weight": (96, 64), "layers.0.down.weight": (64, 96), "layers.1.up.weight": (200, 8)}
ALONE = {"embed_tokens.weight": (50, 64), "layers.0.norm.weight": (64,), "lm_head.weight": (50, 64)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    tensors = {
        name: rng.standard_normal(shape).astype(np.float32) * (i + 1)
        for i, (name, shape) in enumerate((ALONE | SHAPES).items())
    }
    tensors["layers.0.down.weight"] = tensors["layers.0.down.weight"].astype(np.float16)
    bits = tensors["layers.1.up.weight"].view(np.uint32) >> 16
    tensors["layers.1.up.weight"] = bits.astype(np.uint16)
    dtypes = dict.fromkeys(tensors, "F32") | {"layers.0.down.weight": "F16", "layers.1.up.weight": "BF16"}
    return save(tmp_path / "model.safetensors", tensors, dtypes)


def widened(checkpoint, name: str) -> np.ndarray:
    values = checkpoint.read(name)
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values.astype(np.float32)


def prune(model: Path, rule: PruningRule, **options):
    source, target = open_checkpoint(model), model.with_name("out.safetensors")
    found = prune_checkpoint(source, target, rule, weight_matrices(source), **options)
    return source, open_checkpoint(target), found


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.6, 0.95, 1])
@pytest.mark.parametrize("method", [Method.MAGNITUDE, Method.RANDOM, Method.ERK, Method.MAGNITUDE_GLOBAL])
def test_sparsity_is_exact(model: Path, method: Method, sparsity: float) -> None:
    _, pruned, found = prune(model, PruningRule(method, sparsity))
    sizes = {name: m * k for name, (m, k) in SHAPES.items()}
    zeros = {name: int((widened(pruned, name) == 0).sum()) for name in SHAPES}
    assert {name: x.zeros for name, x in found.items()} == zeros
    if method in (Method.MAGNITUDE, Method.RANDOM):
        assert zeros == {name: round(sparsity * size) for name, size in sizes.items()}
    else:
        assert sum(zeros.values()) == pytest.approx(sparsity * sum(sizes.values()), abs=2)


@pytest.mark.parametrize("rule", [PruningRule(Method.MAGNITUDE, 0.7), PruningRule(Method.MAGNITUDE_GLOBAL, 0.7)])
def test_the_smallest_weights_go_and_the_rest_stays(model: Path, rule: PruningRule) -> None:
    source, pruned, _ = prune(model, rule)
    gone, kept = [], []
    for name in SHAPES:
        before, after = source.read(name), pruned.read(name)
        zero = after == 0
        np.testing.assert_array_equal(after[~zero], before[~zero])
        wide = np.abs(widened(source, name))
        gone.append(wide[zero].max())
        kept.append(wide[~zero].min())
    if rule.method is Method.MAGNITUDE:
        assert all(low <= high for low, high in zip(gone, kept, strict=True))
    else:
        assert max(gone) <= min(kept)


def test_other_tensors_are_copied_byte_for_byte(model: Path) -> None:
    source, pruned, _ = prune(model, PruningRule(Method.MAGNITUDE, 0.9))
    assert set(pruned.tensors) == set(source.tensors)
    for name in ALONE:
        assert pruned.read(name).tobytes() == source.read(name).tobytes()
    assert json.loads(pruned.metadata["lscd_pruned"]) == {"method": "magnitude", "sparsity": 0.9, "matrices": 3}


def test_n_m_keeps_the_largest_of_each_group(model: Path) -> None:
    source, pruned, _ = prune(model, PruningRule(Method.NM, 0.5))
    for name in SHAPES:
        groups = np.abs(widened(source, name)).reshape(-1, 4)
        kept = widened(pruned, name).reshape(-1, 4) != 0
        assert (kept.sum(1) == 2).all()
        assert (np.where(kept, groups, np.inf).min(1) >= np.where(kept, 0, groups).max(1)).all()


def test_wanda_prunes_rows_by_weighted_magnitude(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    norms = {name: rng.random(k).astype(np.float32) for name, (_, k) in SHAPES.items()}
    path = save(tmp_path / "norms.safetensors", norms, dict.fromkeys(norms, "F32"))
    source, pruned, _ = prune(model, PruningRule(Method.WANDA, 0.25), norms=open_checkpoint(path))
    for name, (_, k) in SHAPES.items():
        scores = np.abs(widened(source, name)) * norms[name]
        zero = widened(pruned, name) == 0
        assert (zero.sum(1) == k // 4).all()
        assert (np.where(zero, scores, 0).max(1) <= np.where(zero, np.inf, scores).min(1)).all()


def test_random_zeros_depend_on_seed_and_name_only(model: Path) -> None:
    first = prune(model, PruningRule(Method.RANDOM, 0.5, seed=1))[1].read("layers.0.up.weight")
    again = prune(model, PruningRule(Method.RANDOM, 0.5, seed=1))[1].read("layers.0.up.weight")
    other = prune(model, PruningRule(Method.RANDOM, 0.5, seed=2))[1].read("layers.0.up.weight")
    np.testing.assert_array_equal(first, again)
    assert 0.3 < ((first == 0) == (other == 0)).mean() < 0.7


def test_zeros_that_are_there_count(model: Path, tmp_path: Path) -> None:
    half = np.ones((8, 8), np.float32)
    half[:4] = -0.0
    path = save(tmp_path / "half.safetensors", {"w": half}, {"w": "F32"})
    source = open_checkpoint(path)
    found = prune_checkpoint(source, tmp_path / "o.safetensors", PruningRule(Method.MAGNITUDE, 0.75), ["w"])
    assert (found["w"].zeros_before, found["w"].zeros, found["w"].size) == (32, 48, 64)


def test_choosing_matrices(model: Path) -> None:
    source = open_checkpoint(model)
    assert set(weight_matrices(source)) == set(SHAPES)
    assert weight_matrices(source, include=["*embed*"]) == ["embed_tokens.weight"]
    assert weight_matrices(source, exclude=["layers.0.*"]) == ["layers.1.up.weight"]
    with pytest.raises(ValueError, match=r"of its 5 weight matrices none is left: include nothing\*"):
        weight_matrices(source, include=["nothing*"])
    with pytest.raises(ValueError, match=r"all but embeddings, .*, exclude \*"):
        weight_matrices(source, exclude=["*"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (PruningRule(Method.WANDA, 0.5), "a file of input norms"),
        (
            PruningRule(Method.NM, 0.4, keep=3, group=5),
            r"tensor 'layers.0.up.weight': columns: 64; allowed: a multiple of 5",
        ),
    ],
)
def test_nothing_is_written_when_something_is_wrong(model: Path, rule: PruningRule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune(model, rule)
    assert list(model.parent.iterdir()) == [model]


def test_bad_weights_and_norms_are_named(model: Path, tmp_path: Path) -> None:
    broken = np.ones((4, 4), np.float32)
    broken[1, 1] = np.nan
    source = open_checkpoint(save(tmp_path / "nan.safetensors", {"w": broken}, {"w": "F32"}))
    with pytest.raises(ValueError, match=r"nan\.safetensors: tensor 'w': weights: hold NaN"):
        prune_checkpoint(source, tmp_path / "o.safetensors", PruningRule(Method.MAGNITUDE, 0.5), ["w"])
    good = open_checkpoint(save(tmp_path / "good.safetensors", {"w": np.ones((4, 4), "<f4")}, {"w": "F32"}))
    for values, message in (([1, 2, 3], "shape of norms"), ([1, -1, 1, 1], "negative or not finite")):
        norms = open_checkpoint(save(tmp_path / "n.safetensors", {"w": np.array(values, "<f4")}, {"w": "F32"}))
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(good, tmp_path / "o.safetensors", PruningRule(Method.WANDA, 0.5), ["w"], norms=norms)
    with pytest.raises(ValueError, match="no tensor 'w'"):
        prune_checkpoint(good, tmp_path / "o.safetensors", PruningRule(Method.WANDA, 0.5), ["w"],
                         norms=open_checkpoint(model))  # fmt: skip
    assert not (tmp_path / "o.safetensors").exists()


def test_the_input_is_never_overwritten(model: Path) -> None:
    source = open_checkpoint(model)
    with pytest.raises(ValueError, match="another file than the input"):
        prune_checkpoint(source, model, PruningRule(Method.MAGNITUDE, 0.5), weight_matrices(source))
