"""A folder of good and hostile files, good arguments of every command, and values that nobody should type."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import typer
from hypothesis import strategies as st

from kernels_numba.checkpoints.checkpoint import weight_matrices
from kernels_numba.checkpoints.container import convert_checkpoint
from kernels_numba.checkpoints.safetensors_reader import open_checkpoint
from kernels_numba.checkpoints.safetensors_writer import header_room, written
from lscd.cli import app
from perfmodel.catalog import data_directory
from tests.lscd.commands import GOOD_ROW, HEADER

SERVED = "model,gpu,gpus,system,sparsity,{load},input_len,output_len\nopt-13b,h100,1,vllm,0,4,64,64\n"
OWN = (
    "gpu,kernel,m,k,n,sparsity,time_us,time_err_us,status,cache,source,note\n"
    "a100-80gb,flash-llm,4096,4096,8,0.8,30,1,value,cold,mine,\n"
)
SWEEP = """[sweep]
target = "predict"
[axes]
gpu = "h100"
kernel = "cublas"
m = 64
k = 64
n = [8, 16]
sparsity = 0.5
"""
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 2048,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip
TENSORS = {"a.weight": (16, 32), "b.weight": (32, 16), "b.bias": (32,)}
PRODUCT = ["--m", "64", "--k", "64", "--n", "8", "--sparsity", "0.5"]
# One call each that answers at once; what a new command lacks here it still gets hostile values for.
GOOD: dict[tuple[str, ...], list[list[str]]] = {
    ("predict",): [["--gpu", "gpu.toml", *PRODUCT, "--json"], ["--input", "products.csv", "--output", "out.csv"],
                   ["--gpu", "cpu.toml", *PRODUCT, "--speedup", "1.2", "--kernel", "cpu-bitmap"]],
    ("simulate",): [["flash-llm", "--gpu", "gpu.toml", *PRODUCT, "--trace", "out.json", "--json"]],
    ("e2e",): [["--model", "model.toml", "--gpu", "gpu.toml", "--batch", "4", "--sparsity", "0.5", "--json"],
               ["--model", "folder", "--gpu", "h100", "--batch", "4", "--sparsity-file", "zeros.csv"],
               ["--model", "folder", "--gpu", "h100", "--batch", "4", "--sparsity-file", "census.json"],
               ["--input", "runs.csv", "--output", "out.csv"]],
    ("serve",): [["--model", "folder", "--gpu", "gpu.toml", "--users", "4", "--json"],
                 ["--model", "opt-13b", "--gpu", "h100", "--profile", "profile"],
                 ["--input", "served.csv", "--output", "out.csv"]],
    ("tradeoff",): [["--model", "folder", "--gpu", "gpu.toml", "--systems", "vllm", "--batch", "4", "--json"],
                    ["--model", "folder", "--gpu", "h100", "--users", "4", "--sparsity-file", "zeros.csv"]],
    ("plan",): [["--model", "folder", "--gpu", "gpu.toml", "--systems", "vllm", "--max-gpus", "1", "--json"]],
    ("choose",): [["--model", "folder", "--gpu", "gpu.toml", "--batch", "4", "--sparsity", "0.5", "--json"]],
    ("worth",): [["--model", "folder", "--gpu", "gpu.toml", "--batch", "4", "--sparsity", "0.5", "--json"]],
    ("accuracy",): [["--model", "llama-3.1-8b", "--json"]],
    ("gpus",): [["--like", "gpu.toml", "--bandwidth", "1.5", "--sms", "0.8", "--output", "out.toml"]],
    ("formats",): [["--gpu", "gpu.toml", "--n", "8"]],
    ("validate",): [["--with", "own.csv"]],
    ("calibrate",): [["--with", "own.csv", "--out", "out.json"]],
    ("measure",): [["--out", "out.toml"]],
    ("generate",): [["folder", "--prompt", "a", "--tokens", "2"]],
    ("report",): [["--out", "profile"]],
    ("explore",): [["--preset", "gpu=h100&batch=32", "--no-browser"]],
    ("sweep",): [["spec.toml", "--out", "out.parquet", "--threads", "1"]],
    ("query",): [["sweep.parquet", "SELECT count(*) FROM results"]],
    ("kernels", "leaderboard"): [["--gpu", "h100-pcie", "--n", "64", "--json"],
                                 ["--with", "own.csv", "--output", "out.csv"]],
    ("kernels", "trace"): [["dense", "--output", "."]],
    ("weights", "inspect"): [["plain.safetensors", "--gpu", "gpu.toml", "--json"], ["sharded"]],
    ("weights", "prune"): [["plain.safetensors", "out.safetensors", "--sparsity", "0.5"],
                           ["sharded", "profile", "--method", "nm"],
                           ["plain.safetensors", "out.safetensors", "--method", "wanda", "--sparsity", "0.5",
                            "--norms", "norms.safetensors"]],
    ("weights", "convert"): [["plain.safetensors", "out.safetensors"],
                             ["encoded.safetensors", "out.safetensors", "--decode"]],
    ("weights", "evaluate"): [["folder", "--text", "text.txt", "--length", "4"]],
    ("weights", "import"): [["broken.gguf", "profile"]],
}  # fmt: skip


def commands() -> dict[tuple[str, ...], Any]:
    """Every command of the program, by the words that call it."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[words] = command
        for name, part in (inner or {}).items():
            walk(part, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def make_world(folder: Path) -> None:
    """Fill ``folder`` with the files that `GOOD` names, and with what is no file."""
    hardware = data_directory() / "hardware"
    shutil.copy(hardware / "h100.toml", folder / "gpu.toml")
    shutil.copy(hardware / "xeon-emerald-rapids-2c.toml", folder / "cpu.toml")
    shutil.copy(data_directory() / "models" / "opt-13b.toml", folder / "model.toml")
    shutil.copy(data_directory() / "calibration" / "kernels.json", folder / "fits.json")
    texts = {
        "products.csv": f"{HEADER}\n{GOOD_ROW}\n", "runs.csv": SERVED.format(load="batch"), "own.csv": OWN,
        "served.csv": SERVED.format(load="users"), "zeros.csv": "layer,matrix,sparsity\n0,qkv,0.5\n1,qkv,0.6\n",
        "spec.toml": SWEEP,
        "census.json": json.dumps({"matrices": [
            {"name": f"model.layers.{i}.self_attn.o_proj.weight", "m": 64, "k": 64, "sparsity": 0.5} for i in (0, 1)
        ]}),
        "text.txt": "word " * 60, "broken.gguf": "GGUF" + "\0" * 60, "deep.json": "[" * 100_000,
        "deep.toml": "a = " + "[" * 50_000, "\udcff.csv": "x\n", "sweep.parquet": "PAR1",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    _make_weights(folder)
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "pipe.toml")
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "link.csv").symlink_to("products.csv")
    (folder / "hard.toml").hardlink_to(folder / "gpu.toml")
    (folder / "locked.csv").write_text("mine\n")
    (folder / "locked.csv").chmod(0o444)
    with (folder / "endless.csv").open("wb") as file:
        file.truncate(1 << 40)


def _make_weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "sharded").mkdir()
    index = {"weight_map": {name: f"{name[0]}.safetensors" for name in TENSORS}}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    for path, names in (
        ("plain", TENSORS), ("sharded/a", ["a.weight"]), ("sharded/b", ["b.weight", "b.bias"]),
    ):  # fmt: skip
        with written(folder / f"{path}.safetensors", header_room((name, 2) for name in names)) as out:
            for name in names:
                out.add(name, "F16", TENSORS[name], [rng.standard_normal(TENSORS[name]).astype(np.float16)])
    with written(folder / "norms.safetensors", header_room((name, 1) for name in TENSORS)) as out:
        for name, shape in TENSORS.items():
            out.add(name, "F32", shape[-1:], [np.ones(shape[-1:], np.float32)])
    source = open_checkpoint(folder / "plain.safetensors")
    convert_checkpoint(source, folder / "encoded.safetensors", "csr", weight_matrices(source))


def snapshot(folder: Path) -> dict[str, Any]:
    """What is in ``folder``, with contents as far as they end."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        small = path.is_file() and not path.is_symlink() and status.st_size < 1 << 20
        found[os.fsdecode(path.relative_to(folder))] = (status.st_mode, path.read_bytes() if small else status.st_size)
    return found


NUMBERS = (
    "0", "-1", "1", "nan", "inf", "-inf", "1e309", "-0.0", "0.5", "1.5", "1e-320", "1e300", "9" * 30, "9" * 400,
    "2147483648", "1099511627776", "1099511627777", "0x10", "1_000", "١٢", "1e", "٪", "64,", ",", "1:", ":", "64:1",
)  # fmt: skip
NAMES = (
    "", " ", "\n", "a\nb", "\x1b[31mred", "\udcff", "\udcff.toml", "\udcff.csv", "x" * 5000, "x y " * 1300,
    "x" * 300 + ".toml", ".", "..", "/", "/dev/null", "/dev/zero", "/dev/full", "/dev/stdout", "/dev/fd/1",
    "/proc/self/fd/1", "/proc/kmsg", "/etc", "folder", "none/x.csv", "loop.toml", "pipe.csv", "pipe.toml", "link.csv",
    "hard.toml", "locked.csv", "endless.csv", "gpu.toml", "cpu.toml", "cpu.toml@1", "cpu.toml@9", "h100", "h10",
    "model.toml", "products.csv", "own.csv", "deep.json", "deep.toml", "plain.safetensors", "sharded/a.safetensors",
    "norms.safetensors", "fits.json", "out.csv", "out.json", "out.toml", "out.svg", "out.safetensors", "profile", "--",
    "--help", "-", "@", "h100@2", "%s", "{0}", "'", "*", "[", "a,b", "a,,b", "flash-llm", "fp8", "vllm+fp8", "vllm+",
    "graph", "warm", "2:4", "nm", "owl", "erk", "topics", "1,2,4", "keep", "csr", "bitmap-int8", "points", "mmlu",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(NAMES), st.text(max_size=12).map(lambda text: text.replace("\0", "")),
    st.integers().map(str), st.floats().map(str),
)  # fmt: skip
TOKEN = re.compile(rb"[-+.\w]+")


@st.composite
def broken(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with one to three places changed, doubled, cut out or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        tokens = list(TOKEN.finditer(data[:20_000])) or [None]
        token = draw(st.sampled_from(tokens))
        start, end = (token.start(), token.end()) if token else (0, len(data))
        put = draw(st.one_of(VALUES.map(lambda text: text.encode("utf-8", "surrogateescape")), st.binary(max_size=6)))
        edits = {
            "token": data[:start] + put + data[end:], "cut": data[:start], "out": data[:start] + data[end:],
            "double": data[:end] + data[start:end] + data[end:], "before": data[:start] + put + data[start:],
            "twice": data + data,
        }  # fmt: skip
        data = edits[draw(st.sampled_from(list(edits)))]
    return data
