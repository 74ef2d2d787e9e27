"""Where measured rows come from: the GPU and its state, versions, the kernels' sources; and the files that say so.

A table of times is evidence only with the code that ran, the clocks it ran at and what was left out. Everything here
reads; nothing changes a setting of the GPU.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from kernels_numba.bench.product import Gpu
from kernels_numba.bench.timing import Library
from kernels_numba.files import written_whole
from kernels_numba.gpu import device

TABLE = "kernels_lscd.csv"
COPY_BYTES = 2**31
COMMAND_S = 20  # patience with nvidia-smi and git
PACKAGES = (
    "numpy",
    "numba",
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "nvidia-nvvm",
    "nvidia-nvjitlink",
    "nvidia-cublas",
    "nvidia-cusparse",
    "torch",
    "nvidia-cusparselt-cu13",
    "nvidia-cusparselt-cu12",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
STATE = (
    "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "power.limit", "temperature.gpu",
    "ecc.mode.current",
)  # fmt: skip
# Why the clocks are below their maximum, a bit mask: 1 idle, 4 power cap, 8 and 0x40 and 0x80 hardware, 0x20 heat.
# Drivers before 535 know the second name only.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
SAME_RUN = ("gpu", "sources_sha256", "library", "versions", "seed", "method")  # what rows of one table share
# Name that the driver reports -> file in data/hardware; others become their name in small letters.
KEYS = {
    "Tesla V100-SXM2-32GB": "v100",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA A10": "a10",
    "NVIDIA A40": "a40",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H20": "h20",
    "NVIDIA H200": "h200",
    "NVIDIA GH200 120GB": "gh200",
    "NVIDIA GH200 480GB": "gh200",
    "NVIDIA B200": "b200",
    "NVIDIA B300 SXM6 AC": "b300",
    "NVIDIA GB200": "gb200",
    "NVIDIA GB300": "gb300",
    "NVIDIA GB10": "gb10",
    "NVIDIA GeForce RTX 2080 SUPER": "rtx-2080-super",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 5080": "rtx-5080",
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "NVIDIA RTX A5000": "rtx-a5000",
    "NVIDIA RTX A6000": "rtx-a6000",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI355X": "mi355x",
}


@dataclass(frozen=True)
class Row:
    """One measured time, in the columns of every evidence table, and what they may have beside.

    split_k : blocks that shared K; blocks_per_sm : that fit an SM at once; None of kernels that do not say.
    clock_mhz, power_w, throttle : of the GPU under the timing (`nvml.State`).
    """

    gpu: str
    kernel: str
    m: int
    k: int
    n: int
    sparsity: float
    time_us: float
    time_err_us: float
    status: str
    cache: str
    source: str
    note: str
    launch: str = "stream"
    split_k: int | None = None
    activations: str = "fp16"
    blocks_per_sm: int | None = None
    clock_mhz: int | None = None
    power_w: int | None = None
    throttle: int | None = None


KINDS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("m", "k", "n"), int),
    **dict.fromkeys(("sparsity", "time_us", "time_err_us"), float),
    **dict.fromkeys(
        ("split_k", "blocks_per_sm", "clock_mhz", "power_w", "throttle"), lambda text: int(text) if text else None
    ),
}


def gpu_key(name: str) -> str:
    """Key of the catalogue for a driver's device name."""
    return KEYS.get(name, re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-"))


def describe_gpu(library: Library, method: str) -> tuple[Gpu, dict[str, Any]]:
    """The GPU at hand with its measured copy rate, and the provenance of everything measured on it.

    Raises
    ------
    ValueError
        If the kernels cannot be compiled for this GPU.
    """
    ordinal, arch = device.current_ordinal(), device.current_arch()
    name, uuid = device.name_and_uuid(ordinal)
    before = gpu_state(uuid)
    rate = copy_rate(library)
    gpu = Gpu(gpu_key(name), arch, device.sm_count(), device.attribute("l2_bytes", ordinal), rate)
    return gpu, {
        "gpu": name,
        "uuid": uuid,
        "date": time.strftime("%Y-%m-%d"),
        "method": method,
        "library": library.name,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        **code_version(),
        "arch": arch,
        "sm_count": gpu.sm_count,
        "l2_bytes": gpu.l2_bytes,
        "copy_bytes_per_s": round(rate),
        "state_before": before,
        "state_after_copy": gpu_state(uuid),
    }


def copy_rate(library: Library) -> float:
    """Bytes per second, read and written, of a large copy within the GPU's memory."""
    source, target = (library.full((COPY_BYTES // 2,), np.float16, value) for value in (1.0, 0.0))
    timing = library.time([lambda: target.__setitem__(slice(None), source)])
    return 2 * COPY_BYTES / timing.time_us * 1e6


def gpu_state(uuid: str) -> dict[str, str] | None:
    """Driver, clocks, power, temperature and throttle reasons as ``nvidia-smi`` reports them; None if it does not."""
    for names in ((*STATE, REASONS[0]), (*STATE, REASONS[1]), STATE):
        text = _output("nvidia-smi", f"--id={uuid}", f"--query-gpu={','.join(names)}", "--format=csv,noheader")
        values = [value.strip() for value in text.split(",")] if text else []
        if len(values) == len(names):
            return dict(zip(names, values, strict=True))
    return None


def code_version() -> dict[str, str | bool | None]:
    """Hash of this package's sources and, in a checkout, the commit and whether it was changed since."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    git = ("git", "-C", str(package))
    commit = _output(*git, "rev-parse", "HEAD")
    changed = bool(_output(*git, "status", "--porcelain", "--", ".")) if commit else None
    return {"sources_sha256": digest.hexdigest(), "git_commit": commit, "git_changed": changed}


def _output(*command: str) -> str | None:
    """What a command prints, None if it fails or prints nothing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return run.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_table(rows: Sequence[Row], provenance: dict[str, Any], directory: Path) -> Path:
    """Write the rows as CSV and what they come from as JSON beside it, each whole; return the path of the table."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / TABLE
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    with written_whole(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    return path


def read_table(directory: Path, provenance: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Rows and provenance of an earlier run, to be continued by one with ``provenance``; none if there was none.

    Raises
    ------
    ValueError
        If the earlier run had another GPU, code, library, version or method: its rows would not compare.
    """
    path = directory / TABLE
    if not path.exists():
        return [], {}
    earlier = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for key in SAME_RUN:
        if earlier.get(key) != provenance.get(key):
            raise ValueError(f"{path} cannot be continued: its {key} is another; move it away or leave out --resume")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: KINDS.get(name, str)(text) for name, text in row.items()} for row in csv.DictReader(file)]
    return [Row(**row) for row in rows], earlier
