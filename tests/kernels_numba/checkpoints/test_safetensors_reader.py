"""Reading safetensors files: exact round trips, streaming in bounded memory, hostile headers and shards refused."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels_numba.checkpoints.safetensors_reader import BITS, MAX_HEADER_BYTES, STORAGE, open_checkpoint
from kernels_numba.checkpoints.safetensors_writer import written
from tests.kernels_numba.checkpoints.files import save, write_raw

PAIR = {
    "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "U8", "shape": [4], "data_offsets": [12, 16]},
}


def changed(**entry: object) -> dict:
    return PAIR | {"a": PAIR["a"] | entry}


@pytest.mark.parametrize("padded", [False, True])
def test_every_dtype_and_rank_round_trips(tmp_path: Path, padded: bool) -> None:
    rng = np.random.default_rng(1)
    shapes = [(), (0,), (3,), (2, 5), (3, 0, 2), (2, 1, 3)]
    dtypes = {f"t{i}.{dtype}": dtype for i, dtype in enumerate(STORAGE) if BITS[dtype] >= 8}
    tensors = {
        name: rng.integers(0, 256, (*shapes[i % len(shapes)], 1, STORAGE[dtype].itemsize), np.uint8)
        .view(STORAGE[dtype])
        .reshape(shapes[i % len(shapes)])
        for i, (name, dtype) in enumerate(dtypes.items())
    }
    checkpoint = open_checkpoint(save(tmp_path / "x.safetensors", tensors, dtypes, padded=padded))
    assert {name for name in checkpoint.tensors if not name.startswith("__pad__.")} == set(tensors)
    for name, values in tensors.items():
        read = checkpoint.read(name)
        assert (read.dtype, read.shape) == (values.dtype, values.shape)
        assert read.tobytes() == values.tobytes()
        assert not padded or checkpoint.info(name).start % 8 == 0


@pytest.mark.parametrize(("dtype", "shape", "nbytes"), [("F4", [3, 4], 6), ("F6_E2M3", [4, 2], 6), ("F6_E3M2", [8], 6)])
def test_types_below_a_byte_have_whole_bytes(tmp_path: Path, dtype: str, shape: list[int], nbytes: int) -> None:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}
    data = bytes(range(nbytes))
    checkpoint = open_checkpoint(write_raw(tmp_path / "x.safetensors", {"w": entry}, data))
    assert checkpoint.info("w").shape == tuple(shape)
    assert checkpoint.read("w").tobytes() == data
    copy = tmp_path / "copy.safetensors"
    with written(copy, 1000) as out:
        out.add("w", dtype, shape, checkpoint.chunks("w"))
    assert open_checkpoint(copy).read("w").tobytes() == data
    odd = write_raw(tmp_path / "odd.safetensors", {"w": entry | {"shape": [7]}}, data)
    with pytest.raises(ValueError, match=r"odd\.safetensors: tensor 'w': .* ends within a byte; allowed: shapes"):
        open_checkpoint(odd)
    with pytest.raises(ValueError, match="ends within a byte"), written(copy, 1000) as out:
        out.add("w", dtype, [7], [np.zeros(6, np.uint8)])


def test_layout_by_hand(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x.safetensors", PAIR, np.arange(6, dtype="<f2").tobytes() + b"wxyz")
    checkpoint = open_checkpoint(path)
    np.testing.assert_array_equal(checkpoint.read("a"), [[0, 1, 2], [3, 4, 5]])
    assert checkpoint.read("b").tobytes() == b"wxyz"


def test_rows_stream_in_bounded_memory(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 99, (4096, 1024), np.int32)  # 16 MiB
    checkpoint = open_checkpoint(save(tmp_path / "x.safetensors", {"w": matrix}, {"w": "I32"}))
    row = 0
    tracemalloc.start()
    for block in checkpoint.row_blocks("w", 128, limit_bytes=1 << 20):
        assert block.shape == (256, 1024)
        np.testing.assert_array_equal(block[::17], matrix[row : row + 256 : 17])
        row += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row == 4096
    assert peak < 4 << 20  # two blocks and the test's own slices


def test_rows_that_do_not_divide(tmp_path: Path) -> None:
    matrix = np.arange(301 * 7, dtype=np.int32).reshape(301, 7)
    checkpoint = open_checkpoint(save(tmp_path / "x.safetensors", {"w": matrix}, {"w": "I32"}))
    blocks = list(checkpoint.row_blocks("w", 128, limit_bytes=1))
    assert [len(block) for block in blocks] == [128, 128, 45]
    np.testing.assert_array_equal(np.concatenate(blocks), matrix)


HOSTILE = {
    "no JSON": (b"{]", "no valid JSON"),
    "no UTF-8": (b'{"\xff":1}', "no valid JSON"),
    "no object": (b"[1]", "does not begin with"),
    "key twice": (b'{"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"a":1}', "key 'a' comes twice"),
    "field twice": (b'{"a":{"dtype":"U8","dtype":"U8","shape":[16],"data_offsets":[0,16]}}', "key 'dtype' comes twice"),
    "NaN": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,16]}}', "NaN is no JSON number"),
    "deep": (b'{"a":' + b"[" * 200_000, "nests too deeply"),
    "digits": (b'{"a":{"dtype":"U8","shape":[' + b"9" * 9999 + b'],"data_offsets":[0,16]}}', "no valid JSON"),
    "unknown dtype": (changed(dtype="F13"), "dtype 'F13'"),
    "dtype no text": (changed(dtype=["F16"]), "dtype"),
    "wrong dtype": (changed(dtype="F32"), "12 bytes; F32 .* needs 24"),
    "negative size": (changed(shape=[-2, -3]), "shape"),
    "fraction": (changed(shape=[2.0, 3]), "shape"),
    "bool": (changed(shape=[True, 6]), "shape"),
    "huge shape": (changed(shape=[2**62, 2**62, 2**62]), "needs"),
    "many sizes": (changed(shape=[1] * 17), "shape"),
    "missing key": (PAIR | {"a": {"dtype": "F16", "shape": [2, 3]}}, "keys must be"),
    "more keys": (changed(extra=1), "keys must be"),
    "backwards": (changed(data_offsets=[12, 0]), "data_offsets"),
    "negative offset": (changed(data_offsets=[-12, 0]), "data_offsets"),
    "three offsets": (changed(data_offsets=[0, 6, 12]), "data_offsets"),
    "overlap": (PAIR | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [11, 15]}}, "'b' overlaps"),
    "same bytes": (PAIR | {"c": PAIR["a"]}, "overlaps"),
    "gap": (PAIR | {"b": {"dtype": "U8", "shape": [3], "data_offsets": [13, 16]}}, "follows a gap"),
    "beyond": (PAIR | {"b": {"dtype": "U8", "shape": [400], "data_offsets": [12, 412]}}, "is truncated"),
    "rest": ({"a": PAIR["a"]}, "bytes no tensor owns"),
    "metadata": (PAIR | {"__metadata__": {"x": 1}}, "must map text to text"),
    "escape": ({"\x1b[2Jb": PAIR["a"]} | {"b": PAIR["b"]}, "printable"),
    "surrogate": (b'{"\\ud800":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}', "printable"),
    "empty name": ({"": PAIR["a"], "b": PAIR["b"]}, "printable"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, case: str) -> None:
    header, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message) as caught:
        open_checkpoint(write_raw(tmp_path / "x.safetensors", header))
    assert "x.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("length", [0, 10**6, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_header_lengths_that_lie(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match=r"header length is|does not begin"):
        open_checkpoint(write_raw(tmp_path / "x.safetensors", PAIR, length=length))


@pytest.mark.parametrize("size", range(0, 8))
def test_files_shorter_than_their_length_field(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match="header length" if size else "is empty"):
        open_checkpoint(path)


def test_a_file_cut_after_opening_is_noticed(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x.safetensors", PAIR)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated within tensor 'b'"):
        checkpoint.read("b")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 40))
def test_any_mutation_is_refused_or_leaves_a_consistent_file(tmp_path: Path, edits, cut: int) -> None:
    data = bytearray(write_raw(tmp_path / "x.safetensors", PAIR, bytes(range(16))).read_bytes())
    for position, value in edits:
        data[position % len(data)] = value
    path = tmp_path / "y.safetensors"
    path.write_bytes(bytes(data[: len(data) - cut]))
    try:
        checkpoint = open_checkpoint(path)
    except ValueError:
        return
    assert sum(checkpoint.read(name).nbytes for name in checkpoint.tensors) == 16


def write_shards(folder: Path, weight_map: object) -> Path:
    save(folder / "one.safetensors", {"a": np.arange(3, dtype="<f4")}, {"a": "F32"})
    save(folder / "two.safetensors", {"b": np.arange(4, dtype="<f4")}, {"b": "F32"})
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    for where in (path, tmp_path):
        checkpoint = open_checkpoint(where)
        assert {name: checkpoint.read(name).size for name in checkpoint.tensors} == {"a": 3, "b": 4}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../one.safetensors"}, "plain names"),
        ({"a": "/etc/passwd"}, "plain names"),
        ({"a": "..\\one.safetensors"}, "plain names"),
        ({"a": "one.bin"}, "plain names"),
        ({"a": 3}, "plain names"),
        ({}, "no weight_map"),
        (["one.safetensors"], "no weight_map"),
        ({"a": "one.safetensors", "b": "none.safetensors"}, "none.safetensors: no such file"),
        ({"a": "one.safetensors", "b": "one.safetensors"}, "tensor 'b' is not in one"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "tensor 'c' is not in two"),
    ],
)
def test_shard_indices_that_lie(tmp_path: Path, weight_map: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_checkpoint(write_shards(tmp_path, weight_map))


def test_a_tensor_the_index_does_not_name(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    tensors = {"b": np.zeros(1, "<f4"), "c": np.zeros(1, "<f4")}
    save(tmp_path / "two.safetensors", tensors, {"b": "F32", "c": "F32"})
    with pytest.raises(ValueError, match="names 2 tensors; its files hold more"):
        open_checkpoint(path)


def test_missing_files_and_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        open_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"a folder without model\.safetensors\.index\.json or model\.safetensors"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no tensor 'z' among its 2"):
        open_checkpoint(write_raw(tmp_path / "x.safetensors", PAIR)).read("z")
