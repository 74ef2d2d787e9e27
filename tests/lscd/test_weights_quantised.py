"""`lscd weights` on quantised and compressed checkpoints: what they hold is said, and nothing is pruned by mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kernels_numba.checkpoints.layouts.recognise import packed_matrices
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from lscd.weights_quantised import _formats
from perfmodel.catalog import load_sparsities
from tests.kernels_numba.checkpoints.layouts.files import DECODED, NAMED, K, M
from tests.lscd.test_weights import run

PLAIN = {"model.layers.0.mlp.up_proj.weight": ("F16", np.ones((256, 128), np.float16))}
LAYOUTS = {**DECODED, **NAMED}


@pytest.mark.parametrize("case", LAYOUTS)
def test_prune_and_convert_refuse_every_layout_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    layout = LAYOUTS[case]()
    path, out = layout.write(tmp_path, PLAIN), tmp_path / "out.safetensors"
    before = path.read_bytes()
    half = ["--sparsity", "0.5"]
    for arguments in (["prune", path, out, *half], ["prune", path, tmp_path / "new", *half], ["convert", path, out]):
        code, text, error = run(capsys, *arguments)
        assert (code, text) == (2, "")
        assert layout.what in error
        assert "dequantise it first" in error
        assert len(error.splitlines()) == 1
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} <= {"model.safetensors", "config.json"}
    code, text, _ = run(capsys, "prune", path, out, "--sparsity", "0.5", "--include", "*.up_proj.*")
    assert code == 0
    assert "16,384 of 32,768 weights in 1 matrices" in text


@pytest.mark.parametrize("case", DECODED)
def test_inspect_counts_what_codes_stand_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    layout = DECODED[case]()
    path = layout.write(tmp_path)
    code, text, _ = run(capsys, "inspect", path, "--json")
    assert code == 0
    found = json.loads(text)
    (matrix,) = found["matrices"]
    assert layout.values is not None
    zeros = float((layout.values == 0).mean())
    assert (matrix["name"], [matrix["m"], matrix["k"]]) == (layout.name, list(layout.values.shape))
    assert matrix["sparsity"] == pytest.approx(zeros, abs=1e-9)
    assert matrix["nnz"] == np.count_nonzero(layout.values)
    assert found["sparsity"] == pytest.approx(zeros, abs=1e-9)
    assert matrix["bits_per_weight"] == pytest.approx(8 * layout.nbytes / layout.values.size)
    assert matrix["bytes"]["stored"] == layout.nbytes
    assert matrix["bytes"]["dense"] == 2 * layout.values.size
    assert (matrix["kernels"], found["undecoded"], found["total"]["other_bytes"]) == ({}, [], 0)
    assert found["quantised"] == {
        "matrices": 1, "decoded": 1, "layouts": [layout.what], "stored_bytes": layout.nbytes,
        "bits_per_weight": matrix["bits_per_weight"], "sparsity": matrix["sparsity"], "us": None,
    }  # fmt: skip
    code, text, _ = run(capsys, "inspect", path)
    assert text.startswith(f"Stored in pieces ({layout.what}): 1 matrix takes ")
    assert f"{zeros:.1%} of the weights are zero" in text
    assert "prune` makes zeros" not in text


@pytest.mark.parametrize("case", NAMED)
def test_what_is_not_decoded_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    layout = NAMED[case]()
    path = layout.write(tmp_path)
    found = json.loads(run(capsys, "inspect", path, "--json", "--gpu", "h100")[1])
    (entry,) = found["matrices"] + found["undecoded"]
    assert entry["layout"] in layout.what
    assert entry["not_decoded"]
    assert entry["bytes"] == {"stored": layout.nbytes}
    code, text, _ = run(capsys, "inspect", path, "--gpu", "h100")
    assert code == 0
    if layout.zeros is None:
        assert entry["sparsity"] is None
        assert "how many weights are zero is unknown" in text
    else:
        assert entry["sparsity"] == layout.zeros / (M * K)
    assert "Not decoded: 1 of 1, " in text
    assert re.search(rf"No times for {re.escape(layout.what)}: no kernel", text)


def test_a_pattern_of_two_in_four_reads_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = DECODED["sparse-24-bitmask"]().write(tmp_path)
    _, text, _ = run(capsys, "inspect", path, "--gpu", "h100")
    assert "50.0% of the weights are zero" in text
    assert re.search(r"Predicted on h100 at N = 8: .* us as stored \(two-four", text)


def test_the_kernel_of_the_format_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = DECODED["FP8 by tensor"]().write(tmp_path, PLAIN)
    found = json.loads(run(capsys, "inspect", path, "--json", "--gpu", "h100")[1])
    whole, packed = found["matrices"]
    assert (packed["best_kernel"], set(packed["kernels"])) == ("fp8", {"fp8", "cublas"})
    assert found["quantised"]["us"] == packed["kernels"]["fp8"]["time_us"]
    assert found["total"]["us_by_kernel"]["cublas"] == whole["kernels"]["cublas"]["time_us"]
    assert (whole["layout"], whole["bits_per_weight"]) == ("whole", 16)
    _, text, _ = run(capsys, "inspect", path, "--gpu", "h100")
    assert text.index("Stored in pieces") < text.index("The others are stored whole. Not pruned")


@pytest.mark.parametrize(
    ("case", "formats"),
    [
        ("GPTQ 4, v2", ["int4-zp", "int4"]), ("GPTQ 4", ["int4-g64-zp", "int4-g64"]),
        ("AWQ", ["int4-g64-zp", "int4-g64"]), ("FP8 by tensor", ["fp8", "fp8-row"]), ("FP8 by row", ["fp8-row"]),
        ("GPTQ 3", []), ("FP8 by block", ["fp8-block"]),
        ("NVFP4 of ModelOpt", ["nvfp4"]), ("MXFP4 of gpt-oss", ["mxfp4"]), ("MXFP8", ["mxfp8"]), ("Marlin", ["int4"]),
        ("int-quantized by row", ["int8"]), ("bitsandbytes 4", ["int4-g64"]), ("sparse-24-bitmask", ["2:4"]),
        ("sparse-24-bitmask, FP8", ["2:4-fp8"]), ("sparse-bitmask", []), ("Marlin-24", ["int4-2:4"]),
    ],
)  # fmt: skip
def test_layouts_have_the_formats_of_the_catalogue(tmp_path: Path, case: str, formats: list[str]) -> None:
    (packed,) = packed_matrices(open_checkpoint(LAYOUTS[case]().write(tmp_path)))
    assert _formats(packed.coding) == formats


def test_the_zeros_of_a_quantised_checkpoint_are_a_sparsity_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = DECODED["pack-quantized 4"]().write(tmp_path)
    text = run(capsys, "inspect", path, "--json")[1]
    (tmp_path / "zeros.json").write_text(text)
    sparsity = load_sparsities(tmp_path / "zeros.json")
    assert sparsity.mean("mlp-out") == pytest.approx(json.loads(text)["sparsity"])
