"""The container: exact round trips, exact sizes, and every corruption refused, with and without valid checksums."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels_numba.checkpoints import container
from kernels_numba.checkpoints.container import convert_checkpoint, decode_checkpoint, open_encoded, verify
from kernels_numba.checkpoints.encodings import BUFFERS, ENCODERS, HALVES_ONLY, QUANTISED
from kernels_numba.checkpoints.float_values import Rounding
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from kernels_numba.formats import Dense, Element, QuantisedBitmap, QuantisedCondensed
from kernels_numba.reference import check_product
from kernels_numba.spmm import spmm
from tests.kernels_numba.checkpoints.files import save, write_raw
from tests.kernels_numba.problems import random_bits, random_matrix, without_minus_zero

SHAPES = {"up": (130, 70), "down": (65, 131), "dot": (1, 1)}
EXACT = [name for name in BUFFERS if name not in QUANTISED]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Float16 matrices of any bit pattern, and two tensors that are no matrices."""
    tensors = {
        name: random_bits(shape, 0.3 if name != "dot" else 1, seed).view(np.float16)
        for seed, (name, shape) in enumerate(SHAPES.items())
    }
    tensors["bias"] = np.arange(3, dtype=np.float16)
    tensors["flags"] = np.arange(5, dtype=np.uint8)
    return save(tmp_path / "model.safetensors", tensors, dict.fromkeys(tensors, "F16") | {"flags": "U8"})


def convert(model: Path, format_name: str = "tiled-csl", **options) -> Path:
    target = model.with_name(f"{format_name}.safetensors")
    convert_checkpoint(open_checkpoint(model), target, format_name, list(SHAPES), **options)
    return target


def reseal(path: Path, change) -> Path:
    """Let ``change(metadata, entries, data)`` edit a container, then make all checksums agree again."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])
    metadata = header.pop("__metadata__")
    change(metadata, header, data)
    digests = json.loads(metadata["lscd_sha256"])
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        digests[name] = hashlib.sha256(data[begin:end]).hexdigest()
    metadata["lscd_sha256"] = json.dumps(digests)
    metadata["lscd_header_sha256"] = container._header_digest(metadata, header)
    return write_raw(path.with_name("resealed.safetensors"), {"__metadata__": metadata} | header, bytes(data))


def read_everything(path: Path) -> dict[str, bytes]:
    """Bytes of every decoded weight and plain tensor."""
    found = open_encoded(path)
    weights = {name: found.weight(name).decode().tobytes() for name in found.weights}
    return weights | {name: found.tensor(name).tobytes() for name in found.plain}


@pytest.mark.parametrize("format_name", EXACT)
def test_round_trip_is_exact(model: Path, format_name: str) -> None:
    source, path = open_checkpoint(model), convert(model, format_name)
    found = open_encoded(path)
    assert verify(source, found) == 5
    decode_checkpoint(found, model.with_name("decoded.safetensors"))
    decoded = open_checkpoint(model.with_name("decoded.safetensors"))
    assert set(decoded.tensors) == set(source.tensors)
    for name in source.tensors:
        expected = source.read(name)
        if name in SHAPES and format_name != "dense":
            expected = without_minus_zero(expected.view(np.uint16)).view(np.float16)
        assert decoded.read(name).tobytes() == expected.tobytes(), name
    assert verify(decoded, found) == 5


@pytest.mark.parametrize("format_name", EXACT)
def test_sizes_are_those_of_the_encodings(model: Path, format_name: str) -> None:
    source, target = open_checkpoint(model), model.with_name("out.safetensors")
    found = convert_checkpoint(source, target, format_name, list(SHAPES))
    stored = open_checkpoint(target)
    for name in SHAPES:
        buffers = [stored.info(f"{name}.{buffer}") for buffer in BUFFERS[format_name]]
        assert found[name].encoded_bytes == sum(info.nbytes for info in buffers)
        assert all(info.start % 8 == 0 for info in buffers)
        assert found[name].nnz == np.count_nonzero(source.read(name).view(np.uint16) & 0x7FFF)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("format_name", ["csr", "two-four", "dense"])
def test_other_dtypes_are_kept_exactly(tmp_path: Path, dtype: str, format_name: str) -> None:
    element = {"F32": Element.FLOAT32, "BF16": Element.BFLOAT16}[dtype]
    values = random_bits((70, 40), 0.4, dtype=element.bits.type).view(element.storage)
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": dtype}))
    found = convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"], keep_dtype=True)
    assert found["w"].rounding == Rounding()
    opened = open_encoded(tmp_path / "y.safetensors")
    assert opened.weight("w").element is element
    verify(source, opened)


@pytest.mark.parametrize("format_name", EXACT)
def test_bfloat16_is_kept_exactly_in_every_format(tmp_path: Path, format_name: str) -> None:
    """Any bit pattern comes back, and a product is one of bfloat16; float32 fits where a value has room for it."""
    values = random_bits((70, 41), 0.4)
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": "BF16"}))
    found = convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"], keep_dtype=True)
    assert found["w"].rounding == Rounding()
    opened = open_encoded(tmp_path / "y.safetensors")
    verify(source, opened)
    weight = opened.weight("w")
    assert weight.element is Element.BFLOAT16
    np.testing.assert_array_equal(without_minus_zero(weight.decode()), without_minus_zero(values))
    decode_checkpoint(opened, tmp_path / "z.safetensors")
    assert open_checkpoint(tmp_path / "z.safetensors").info("w").dtype == "BF16"


@pytest.mark.parametrize("format_name", HALVES_ONLY)
def test_formats_of_16_bit_values_do_not_keep_float32(tmp_path: Path, format_name: str) -> None:
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": np.ones((2, 2), np.float32)}, {"w": "F32"}))
    with pytest.raises(
        ValueError, match=f"dtype: F32; allowed: F16 or BF16, or conversion to float16, for {format_name}"
    ):
        convert_checkpoint(source, tmp_path / "z.safetensors", format_name, ["w"], keep_dtype=True)


@pytest.mark.parametrize("format_name", EXACT)
def test_bfloat16_beyond_the_range_of_float16_is_never_lost_in_silence(tmp_path: Path, format_name: str) -> None:
    """65536 is refused where float16 is asked for, 2**-30 is counted as flushed, and both are kept with the dtype."""
    values = np.array([[0x4780, 0x3F80], [0x3080, 0]], np.uint16)  # 65536, 1, 2**-30, 0
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": "BF16"}))
    with pytest.raises(ValueError, match=r"tensor 'w': float16: overflows at 1 values; allowed: .*--dtype keep"):
        convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"])
    assert not (tmp_path / "y.safetensors").exists()
    convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"], keep_dtype=True)
    weight = open_encoded(tmp_path / "y.safetensors").weight("w")
    x = np.full((2, 8), 0x3F80, np.uint16)
    out = spmm(weight, x, backend="emulator", out_dtype=np.float32)
    np.testing.assert_array_equal(out[:, 0], np.array([65537, 2**-30], np.float32))
    values[0, 0] = 0
    source = open_checkpoint(save(tmp_path / "small.safetensors", {"w": values}, {"w": "BF16"}))
    found = convert_checkpoint(source, tmp_path / "z.safetensors", format_name, ["w"])
    assert found["w"].rounding == Rounding(changed=1, flushed=1)


def test_rounding_to_float16_is_counted_and_overflow_refused(tmp_path: Path) -> None:
    values = np.array([[1, 1 + 2**-12, 1e-9, 0]], np.float32)
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": "F32"}))
    found = convert_checkpoint(source, tmp_path / "y.safetensors", "csr", ["w"])
    assert found["w"].rounding == Rounding(changed=2, flushed=1)
    assert (found["w"].source_bytes, found["w"].nnz) == (16, 2)
    verify(source, open_encoded(tmp_path / "y.safetensors"))
    source = open_checkpoint(save(tmp_path / "big.safetensors", {"w": values * 1e6}, {"w": "F32"}))
    with pytest.raises(ValueError, match=r"tensor 'w': float16: overflows at 2 values"):
        convert_checkpoint(source, tmp_path / "z.safetensors", "csr", ["w"])
    assert not (tmp_path / "z.safetensors").exists()


def test_verify_finds_a_difference(model: Path) -> None:
    found = open_encoded(convert(model))
    source = open_checkpoint(model)
    for name, dtype in {"up": "F16", "bias": "F16"}.items():
        tensors = {other: source.read(other) for other in source.tensors}
        flat = tensors[name].reshape(-1).view(np.uint16)
        flat[np.flatnonzero(flat & 0x7FFF)[0]] ^= 1
        changed = save(model.with_name("changed.safetensors"), tensors, dict.fromkeys(tensors, dtype) | {"flags": "U8"})
        with pytest.raises(ValueError, match=f"tensor '{name}' differs"):
            verify(open_checkpoint(changed), found)


def test_what_cannot_be_converted(model: Path) -> None:
    with pytest.raises(ValueError, match="format: elf; allowed: tiled-csl, csr"):
        convert(model, "elf")
    with pytest.raises(ValueError, match="encoded already"):
        convert_checkpoint(open_checkpoint(convert(model)), model.with_name("z.safetensors"), "csr", ["up"])
    with pytest.raises(ValueError, match="another file than the input"):
        convert_checkpoint(open_checkpoint(model), model, "csr", ["up"])
    with pytest.raises(ValueError, match="holds no encoded weights"):
        open_encoded(model)
    with pytest.raises(ValueError, match=r"weight: 'bias'; allowed: one of its 3"):
        open_encoded(convert(model)).weight("bias")
    clash = save(model.with_name("clash.safetensors"), {"w": np.ones((2, 2), "<f2"), "w.words": np.ones(1, "<f2")},
                 {"w": "F16", "w.words": "F16"})  # fmt: skip
    with pytest.raises(ValueError, match=r"'w\.words' is there already"):
        convert_checkpoint(open_checkpoint(clash), model.with_name("z.safetensors"), "tiled-csl", ["w"])


@pytest.mark.parametrize("format_name", EXACT)
def test_every_byte_of_the_data_is_guarded(model: Path, format_name: str) -> None:
    path = convert(model, format_name)
    raw, intact = path.read_bytes(), read_everything(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(raw), 60):
        changed = bytearray(raw)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            assert read_everything(path) == intact  # a flip in the padding of header or data may do no harm


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_edit_of_the_file_is_refused_or_harmless(model: Path, data) -> None:
    path = model.with_name("tiled-csl.safetensors")
    if not path.exists():
        convert(model)
    raw, intact = path.read_bytes(), read_everything(path)
    begin = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(begin, min(len(raw), begin + 40)))
    edited = model.with_name("edited.safetensors")
    edited.write_bytes(raw[:begin] + data.draw(st.binary(max_size=40)) + raw[end:])
    try:
        assert read_everything(edited) == intact
    except ValueError as error:
        assert "edited.safetensors" in str(error)  # noqa: PT017


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(EXACT), st.data())
def test_corrupt_encodings_under_valid_checksums_never_reach_a_decoder(model: Path, format_name: str, data) -> None:
    """What passes is a valid encoding of some matrix of the stated shape: decoding cannot go astray."""
    path = model.with_name(f"{format_name}.safetensors")
    if not path.exists():
        convert(model, format_name)

    def change(metadata, entries, blob) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, len(blob) - 1))
            blob[position] = data.draw(st.integers(0, 255))

    found = open_encoded(reseal(path, change))
    for name, shape in SHAPES.items():
        try:
            decoded = found.weight(name).decode()
        except ValueError as error:
            assert f"weight {name!r}" in str(error)  # noqa: PT017
        else:
            assert decoded.shape == shape


def edit(weight: str, **changes):
    def change(metadata, entries, blob) -> None:
        weights = json.loads(metadata["lscd_weights"])
        weights[weight] |= changes
        metadata["lscd_weights"] = json.dumps(weights)

    return change


def swap_dtype(metadata, entries, blob) -> None:
    entries["up.words"]["dtype"] = "I32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("up", shape=[130, 65]), "non-zero outside the matrix"),
        (edit("up", shape=[2**40, 2**40]), r"shape \[1099511627776, .*; allowed: .* up to"),
        (edit("up", shape=[130, -70]), "shape"),
        (edit("up", shape=[130, 70.0]), "shape"),
        (edit("up", shape=[True, 9100]), "shape"),
        (edit("up", shape=[520, 70]), "tile_offsets"),
        (edit("up", format="csr"), "lacks"),
        (edit("up", format=["csr"]), "format"),
        (edit("up", element="float32"), "element: float32; allowed: float16"),
        (edit("up", element="int8"), "element 'int8'"),
        (edit("up", source_dtype="F64"), "source_dtype 'F64'"),
        (edit("up", more=1), "other keys"),
        (lambda metadata, entries, blob: metadata.update(lscd_weights="[]"), "allowed: an object"),
        (lambda metadata, entries, blob: metadata.update(lscd_weights='{"up":1,"up":2}'), "comes twice"),
        (lambda metadata, entries, blob: metadata.update(lscd_version="2"), "version '2'; allowed: 1"),
        (lambda metadata, entries, blob: metadata.update(format="pt"), "holds no encoded weights"),
        (swap_dtype, "words"),
    ],
)
def test_lies_under_valid_checksums_are_refused(model: Path, change, message: str) -> None:
    path = reseal(convert(model), change)
    with pytest.raises(ValueError, match=message) as caught:
        read_everything(path)
    assert "resealed.safetensors" in str(caught.value)


def test_checksums_are_needed_for_every_tensor(model: Path) -> None:
    path = convert(model)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header["__metadata__"]
    digests = json.loads(metadata["lscd_sha256"])
    del digests["bias"]
    metadata["lscd_sha256"] = json.dumps(digests)
    broken = write_raw(model.with_name("b.safetensors"), header, raw[8 + length :])
    with pytest.raises(ValueError, match="corrupt header"):
        open_encoded(broken)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    metadata["lscd_header_sha256"] = container._header_digest(metadata, entries)
    broken = write_raw(model.with_name("b.safetensors"), header, raw[8 + length :])
    with pytest.raises(ValueError, match="one for each tensor"):
        open_encoded(broken)


@pytest.mark.parametrize("format_name", EXACT)
def test_a_stored_weight_multiplies(tmp_path: Path, format_name: str) -> None:
    rng = np.random.default_rng(4)
    values = np.where(rng.random((130, 70)) < 0.4, rng.standard_normal((130, 70)), 0).astype(np.float16)
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": "F16"}))
    convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"])
    x = rng.standard_normal((70, 8)).astype(np.float16)
    weights = open_encoded(tmp_path / "y.safetensors").weight("w")
    check_product(spmm(weights, x, backend="cpu", out_dtype=np.float32), Dense(values), x)


@pytest.mark.parametrize("format_name", QUANTISED)
def test_rounded_values_come_back_as_their_encoder_rounds_them(tmp_path: Path, format_name: str) -> None:
    """With the type of their values and every buffer; what was decoded is verified too, and a changed weight found."""
    values = random_matrix(70, 300, 0.3)
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": "F16"}))
    found = convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"])["w"]
    opened = open_encoded(tmp_path / "y.safetensors")
    weight, encoded = opened.weight("w"), ENCODERS[format_name](values)
    assert isinstance(weight, QuantisedBitmap | QuantisedCondensed)
    assert weight.value_type is QUANTISED[format_name]
    for name, buffer in encoded.buffers.items():
        np.testing.assert_array_equal(weight.buffers[name], buffer)
    assert (found.encoded_bytes, found.nnz) == (encoded.nbytes, encoded.nnz)
    change = encoded.decode().astype(np.float64) - values
    assert found.code_error == pytest.approx(np.sqrt(np.sum(change**2) / np.sum(values.astype(np.float64) ** 2)))
    assert found.code_error > 0
    verify(source, opened)
    decode_checkpoint(opened, tmp_path / "z.safetensors")
    decoded = open_checkpoint(tmp_path / "z.safetensors")
    np.testing.assert_array_equal(decoded.read("w"), encoded.decode())
    verify(decoded, opened)
    values[values != 0] *= np.float16(1.5)
    other = open_checkpoint(save(tmp_path / "other.safetensors", {"w": values}, {"w": "F16"}))
    with pytest.raises(ValueError, match="tensor 'w' differs"):
        verify(other, opened)


@pytest.mark.parametrize("format_name", QUANTISED)
def test_corrupt_codes_and_scales_under_valid_checksums_are_refused_or_finite(tmp_path: Path, format_name: str) -> None:
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": random_matrix(40, 140, 0.2)}, {"w": "F16"}))
    convert_checkpoint(source, tmp_path / "y.safetensors", format_name, ["w"])
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):

        def change(metadata, entries, blob) -> None:
            blob[int(rng.integers(len(blob)))] = int(rng.integers(256))

        try:
            decoded = open_encoded(reseal(tmp_path / "y.safetensors", change)).weight("w").decode()
        except ValueError as error:
            refused += "weight 'w'" in str(error)
        else:
            assert decoded.shape == (40, 140)
            assert np.isfinite(decoded).all()
    assert refused


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (np.ones((2, 2), np.uint16), "BF16", "dtype: BF16; allowed: F16, or conversion to float16, for bitmap-e4m3"),
        (np.ones((2, 2), np.float32), "F32", "dtype: F32; allowed: F16, or conversion to float16, for bitmap-e4m3"),
        (np.array([[1, np.nan]], np.float16), "F16", "a: infinity or NaN; allowed: finite numbers"),
    ],
)
def test_what_codes_cannot_hold_is_refused(tmp_path: Path, values: np.ndarray, dtype: str, message: str) -> None:
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"w": values}, {"w": dtype}))
    with pytest.raises(ValueError, match=f"x.safetensors: tensor 'w': {message}"):
        convert_checkpoint(source, tmp_path / "y.safetensors", "bitmap-e4m3", ["w"], keep_dtype=True)


def test_a_file_that_names_another_type_of_values_is_refused(tmp_path: Path) -> None:
    """As far as the buffers can tell: half as many codes a byte, or 16 bits that have no codes."""
    source = open_checkpoint(save(tmp_path / "x.safetensors", {"up": random_matrix(40, 140, 0.2)}, {"up": "F16"}))
    convert_checkpoint(source, tmp_path / "y.safetensors", "bitmap-int8", ["up"])
    for changes, message in (({"format": "bitmap-int4"}, "offsets"), ({"element": "bfloat16"}, "element: bfloat16")):
        with pytest.raises(ValueError, match=message):
            open_encoded(reseal(tmp_path / "y.safetensors", edit("up", **changes))).weight("up")
