"""The file of LSCD_KERNELS: a class in it joins the kernels, or is refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perfmodel.formats import FORMATS
from perfmodel.kernels.own import SETTING, own_kernels

GOOD = '''
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from perfmodel.catalog.specs import Bound
from perfmodel.formats import FORMATS, WeightFormat
from perfmodel.kernels.base import FIRST_CALL, KernelModel, KernelTime, free

def size(m, k, s):
    return 3.0 * (1 - s) * m * k

MINE = WeightFormat("mine", "mine", size, depends_on_sparsity=True, lossless=True, source="here")
THEIRS = FORMATS["bitmap"]

@dataclass(frozen=True)
class Parameters:
    share: float = free(0.9, 0.5, 1.0, "share of the rate", fast="high")

class Base(KernelModel):
    """Abstract: a base of others."""

class Mine(Base):
    name, title, format_name = "mine", "Mine", "mine"
    Parameters = Parameters
    def time(self, machine, shape, p, call=FIRST_CALL):
        read = self.format.bytes_of(shape.m, shape.k, shape.sparsity)
        memory = call.memory_s(machine, read, shape.activation_bytes) / p.share
        time = memory + call.launch_s()
        terms = {Bound.MEMORY: memory, Bound.LATENCY: np.broadcast_to(call.launch_s(), time.shape)}
        return KernelTime(time, terms, call.dram_bytes(machine, read, shape.activation_bytes))
'''
KNOWN = {"cublas", "flash-llm"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(FORMATS)
    monkeypatch.setenv(SETTING, str(tmp_path / "mine.py"))
    yield tmp_path / "mine.py"
    FORMATS.clear()
    FORMATS.update(before)


def test_a_class_and_its_format_enter_assumed(path: Path) -> None:
    path.write_text(GOOD)
    (model,) = own_kernels(KNOWN).models
    assert (model.name, model.assumed, model.format.change) == ("mine", True, "pruned")
    assert float(FORMATS["mine"].bytes(100, 100, 0.5)) == 15000
    assert list(path.parent.iterdir()) == [path], "nothing is written beside it"


def test_no_file_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for nothing in ("", None):
        monkeypatch.delenv(SETTING, raising=False) if nothing is None else monkeypatch.setenv(SETTING, nothing)
        assert own_kernels(KNOWN).models == ()


END = GOOD.count("\n") + 1  # line of what is added
TIME = next(number for number, line in enumerate(GOOD.splitlines(), start=1) if "/ p.share" in line)
SIZE = next(number for number, line in enumerate(GOOD.splitlines(), start=1) if "return 3.0" in line)
NAMES = 'name, title, format_name = "mine", "Mine", "mine"'
FREE = 'free(0.9, 0.5, 1.0, "share of the rate", fast="high")'


def but(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


BAD = {
    "no such file": (None, "mine.py: No such file or directory"),
    "syntax": (but("class Base(", "class Base(("), "SyntaxError: "),
    "fails": (GOOD + "1 / 0\n", f"line {END}: ZeroDivisionError: division by zero"),
    "ends": (GOOD + "raise SystemExit(0)\n", f"line {END}: SystemExit: 0"),
    "no class": ("x = 1\n", "no subclass of KernelModel with a method 'time' is defined there"),
    "abstract": (but("def time", "def times"), "no subclass of KernelModel with a method 'time' is defined there"),
    "kernel there": (but(NAMES, NAMES.replace("mine", "cublas", 1)), "kernel 'cublas' is there already"),
    "format there": (but('WeightFormat("mine"', 'WeightFormat("csr"'), "format 'csr' is there already"),
    "no such format": (but(NAMES, NAMES.replace('"Mine", "mine"', '"Mine", "bitmp"')), "did you mean bitmap?"),
    "no title": (but(NAMES, 'name, format_name = "mine", "mine"'), "class Mine has no attribute 'title'"),
    "name": (but(NAMES, NAMES.replace("mine", "my kernel", 1)), "Mine.name is 'my kernel', allowed are letters"),
    "no text": (but(NAMES, NAMES.replace('"mine"', "7", 1)), "Mine.name is 7, allowed is a text"),
    "parameters": (but("Parameters = Parameters", "Parameters = dict"), "Mine.Parameters is no dataclass"),
    "not free": (but(FREE, "0.9"), "parameter share is not declared by free"),
    "start": (but("free(0.9,", "free(1.9,"), "share starts at 1.9, allowed is 0.5 to 1.0"),
    "raises": (but("/ p.share", "/ p.shares"), f"line {TIME}: Mine.time: AttributeError: 'Parameters' object has no"),
    "shape": (but("time = memory +", "time = memory.sum() +"), "Mine.time"),
    "nan": (but("time = memory +", "time = np.nan * memory +"), "allowed is a positive time of each"),
    "terms": (but("Bound.LATENCY", "Bound.COMPUTE"), "gives no KernelTime whose terms hold Bound.LATENCY"),
    "bytes": (but("return 3.0 *", "return -3.0 *"), "of 4096 x 4096, allowed are positive ones"),
    "bytes raise": (but("return 3.0 *", "return three *"), f"line {SIZE}: format 'mine': NameError: name 'three'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_in_a_sentence(path: Path, case: str) -> None:
    text, words = BAD[case]
    if text is not None:
        path.write_text(text)
    before = dict(FORMATS)
    with pytest.raises(ValueError, match=r"mine\.py: ") as told:
        own_kernels(KNOWN)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert before == FORMATS, "no format of a refused file stays"


def test_every_command_sees_it_and_a_bad_file_ends_with_2(path: Path) -> None:
    path.write_text(GOOD)

    def lscd(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "lscd", *arguments], capture_output=True, text=True, check=False)

    assert '"name": "mine"' in lscd("kernels", "list", "--json").stdout
    assert "\nmine " in lscd("formats").stdout
    product = ("predict", "--gpu", "h100", "--m", "4096", "--k", "4096", "--n", "8", "--sparsity", "0.8")
    assert "never measured, but might reach: mine" in lscd(*product, "--kernel", "mine").stdout
    assert "not measured" in lscd(*product).stdout.partition("\nmine ")[2].splitlines()[0]
    path.write_text(GOOD + "1 / 0\n")
    failed = lscd("kernels", "list")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == f"lscd: {SETTING}: {path}: line {END}: ZeroDivisionError: division by zero\n"
    assert lscd("--help").returncode == 0


def test_its_times_follow_its_formula(path: Path) -> None:
    from perfmodel.catalog import load_gpu
    from perfmodel.kernels.base import Call, Machine, Shape

    path.write_text(GOOD)
    (model,) = own_kernels(KNOWN).models
    machine, shape = Machine.of(load_gpu("h100")), Shape.of(8192, 8192, [8, 16], 0.8)
    fast, slow = (model.time(machine, shape, parameters).time_s for parameters in model.at_ends())
    read = 3.0 * 0.2 * 8192 * 8192 + 2 * np.array([8, 16]) * 2 * 8192
    assert fast == pytest.approx(read / machine.streamed_bytes_per_s + Call().launch_s(), rel=0.01)
    assert (slow > 1.5 * fast).all()
