"""Fills the documentation at build time, so that no number and no option in it can be out of date.

Six placeholders: a fence marked ``run`` gets the output of its commands or code behind it; ``<!-- cli -->`` becomes
the reference of every command; ``<!-- fits -->`` and ``<!-- constants -->`` the tables of fitted parameters and of
numbers taken from evidence by hand; ``<!-- answers -->`` the five answers of the front page;
``<!-- leaderboard -->`` who is fastest as measured. A command that fails fails the build; one that compiles kernels
says so where there is no compiler.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from kernels_numba.gpu.toolchain import NoCompilerError
from lscd.cli import app
from lscd.report.answers import first_answers
from lscd.report.leaderboard import as_markdown
from perfmodel.catalog import load_calibration
from perfmodel.catalog.papers import load_paper
from perfmodel.catalog.specs import Precision
from perfmodel.choice import SEVERAL_MATRICES
from perfmodel.evidence.power_fit import ASSUMED_PROMPT
from perfmodel.evidence.rows import DIRTY_PER_READ, DIRTY_SHARE
from perfmodel.evidence.runs import SCALED_APART_BYTES
from perfmodel.kernels import KERNELS, decode, tiled_csl
from perfmodel.kernels.call import L2_READ_SHARE, STREAM_LAUNCH_S
from perfmodel.kernels.csr import LATENCY_CYCLES
from perfmodel.kernels.cusparse import FEWEST_CYCLES
from perfmodel.kernels.fits import kernel_fits, unmeasured_kernels
from perfmodel.kernels.limits import (
    MEMORY_FILE,
    POWERED,
    SPLIT_L2_KEEPS,
)
from perfmodel.kernels.low_precision import PIPELINE_CYCLES, QUANTISE_S
from perfmodel.kernels.machine import AT_LIMIT, SPARSE_AT_LIMIT
from perfmodel.pipeline.parameters import PIPELINE_FILE, PipelineParameters
from perfmodel.pipeline.stages import CONFLICT_INSTRUCTIONS
from perfmodel.serving import attention, collectives, cpu_decoding, energy, experts
from perfmodel.serving.collectives import CALIBRATION_FILE as SYSTEMS_FILE
from perfmodel.serving.systems import CALIBRATION_NAME as SERVING
from perfmodel.serving.systems import ENGINES, HostParameters, SystemParameters

RUN_FENCE = re.compile(r"```(shell|python) run\n(.*?)```\n", flags=re.DOTALL)
REPORT_PICTURE = re.compile(r"\]\(((?:\.\./)*)\.\./reports/figures/([\w.-]+)\)")  # as a page names it in the repository
FIGURES = Path(__file__).resolve().parents[1] / "reports" / "figures"
NOTEBOOK_LINK = re.compile(r"\]\((\w+)\.ipynb")  # notebooks link each other; here they are pages
PAPERS = Path(__file__).with_name("papers")
PAPERS_NOTEBOOK = re.compile(r"\]\(\.\./\.\./notebooks/(\w+)\.ipynb")  # as pages of papers do in the repository
DETAILS = '<details markdown="1">'  # solutions of notebooks, whose Markdown Jupyter reads unasked
COLUMNS = re.compile(r"\S {2,}\S|^ ", flags=re.MULTILINE)  # which lines that wrap would break
WIDTH = "110"
NO_COMPILER = "Not run when this page was built: it compiles a kernel, for which there was no compiler.\n"
LEAST = 1e-15  # below it a fitted number is 0, which its fit comes near and never reaches
SYSTEM_RECORDS: dict[str | None, Any] = {
    collectives.CALIBRATION_NAME: collectives.CollectiveParameters,
    attention.CALIBRATION_NAME: attention.AttentionParameters,
    experts.CALIBRATION_NAME: experts.ExpertParameters,
    energy.CALIBRATION_NAME: energy.PowerParameters,
    cpu_decoding.CALIBRATION_NAME: cpu_decoding.CpuHostParameters,
    SERVING: SystemParameters,
    **{system.host: HostParameters for system in ENGINES.values()},
}
BITMAP_SHARE = {f.name: f.metadata for f in fields(decode.BitmapParameters)}["bandwidth_efficiency"]
BY_HAND = (  # what a number is, its value, and the evidence that it was taken from
    (
        "launch in a stream over one in a graph",
        f"{STREAM_LAUNCH_S * 1e6:g} us",
        "dense products: fixed part in serving stacks (graphs) against Fig 9's (stream)",
    ),
    (
        "share of an L2 of two halves that keeps what all SMs read",
        f"{SPLIT_L2_KEEPS:g}",
        "dense products of the A100 and H100 with weights in the L2",
    ),
    (
        "share of the L2's rate that a product in it reaches",
        f"{L2_READ_SHARE:g}",
        "RTX 4090, 4096 x 4096: 33 MB in 19 us",
    ),
    *(
        (
            f"Tensor-Core rate at a board's power limit over the root of (watts x SMs), {architecture.value}",
            f"{rate / 1e12:g} TFLOP/s",
            seen,
        )
        for architecture, (rate, seen) in POWERED.items()
    ),
    (
        "rates there in that of FP16: FP8, INT8, FP4",
        ", ".join(f"{AT_LIMIT[each]:g}" for each in (Precision.FP8, Precision.INT8, Precision.FP4)),
        "long products on A100s, H100s, a B200 and a GB200; FP4 8192 x 8192 on a B200",
    ),
    (
        "the same with 2:4 weights: FP16, FP8, INT8",
        ", ".join(f"{SPARSE_AT_LIMIT[each]:g}" for each in (Precision.FP16, Precision.FP8, Precision.INT8)),
        "cuSPARSELt on an A100 PCIe and an H100 PCIe",
    ),
    (
        "pipeline of dense FP8, INT8 and FP4 products",
        f"{PIPELINE_CYCLES:g} cycles",
        "64 x 64 in FP8 and FP16 on an H100 PCIe and an A100 PCIe",
    ),
    (
        "quantising the activations before a 2:4 product of 8 bits",
        f"{QUANTISE_S * 1e6:g} us",
        "what dense FP8 and INT8 products take in engines; 2:4 was timed without it",
    ),
    (
        "error of a layer's speed-up over that of a product's",
        f"{SEVERAL_MATRICES:g}",
        "four matrices together in the engines' tables: 0.56 to 0.85 for six kernels",
    ),
    (
        "Tensor-Core efficiency of Flash-LLM",
        f"{tiled_csl.TENSOR_EFFICIENCY:g}",
        "SpInfer's figure 16 from 1,024 tokens on and an RTX A6000 at 512: between the two",
    ),
    (
        "blocks of Flash-LLM on an SM at 64 tokens",
        f"{tiled_csl.BLOCKS_BY_REGISTERS_AT_64}",
        "registers counted by hand; OPT-66B and OPT-30B at batch 64 tell it from two",
    ),
    (
        "range of SpInfer's share of a long read",
        "{:g} to {:g}".format(*(BITMAP_SHARE[end] for end in ("low", "high"))),
        "other kernels' shares: quartiles over shapes cannot tell it from the latency",
    ),
    ("Tensor-Core efficiency of SpInfer's kernel", f"{decode.Bitmap.tensor_efficiency:g}", "as above"),
    ("cycles of a non-zero in cuSPARSE, at least", f"{FEWEST_CYCLES:g}", "upper whiskers of SpInfer's figure 10"),
    (
        "cycles of fill and drain of Sputnik and cuSPARSE",
        f"{LATENCY_CYCLES:g}",
        "time of an empty matrix in Flash-LLM's sparsity sweep",
    ),
    (
        "instructions that a further wavefront of a conflicting store holds its warp for, in the simulator",
        f"{CONFLICT_INSTRUCTIONS:g}",
        "twelve medians of Flash-LLM without reordering on an A100-40GB (`spinfer-rerun-boxplot`)",
    ),
    (
        "share of an L2 that a memset leaves dirty, and dirty bytes thrown out per byte read",
        f"{DIRTY_SHARE:g}, {DIRTY_PER_READ:g}",
        "cold harnesses: fixed part of dense, MACKO's and Sputnik's times by size on three GPUs",
    ),
    (
        "time of a GPU's part on its bare link from which NCCL leaves the low-latency protocol",
        f"{collectives.LOW_LATENCY_CHUNK_S * 1e6:g} us",
        "step in the A100's all-reduces: middle of the two message sizes around it",
    ),
    (
        "tokens of a prompt where a source of power keeps them to itself, 2025 and 2024",
        ", ".join(f"{tokens:g}" for tokens in ASSUMED_PROMPT.values()),
        "chats with earlier turns and first turns: assumed, the error of the fit hardly depends on it",
    ),
    (
        "bytes that SlideSparse's harness moves for each output beyond vLLM: INT8, FP8",
        ", ".join(f"{size:g}" for size in SCALED_APART_BYTES.values()),
        "its code: sums of 32 or 16 bits, read, scaled and written by a kernel of their own",
    ),
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Hook of MkDocs: every page of a paper has its place in the navigation, under the list of them."""
    pages = [
        {load_paper(path.stem).short: f"papers/{path.name}"}
        for path in sorted(PAPERS.glob("*.md"))
        if path.stem != "index"
    ]
    config.nav = [
        {**part, "Papers": ["papers/index.md", *pages]} if "Papers" in part else part for part in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Hook of MkDocs: pictures of the report that pages show become files of the site.

    Raises
    ------
    ValueError
        If a page shows a picture that is not there.
    """
    for page in list(files.documentation_pages()):
        for _, name in REPORT_PICTURE.findall(page.content_string):
            if not (FIGURES / name).is_file():
                raise ValueError(f"{page.src_uri} shows reports/figures/{name}, which is not there: run `make report`")
            if files.get_file_from_path(f"figures/{name}") is None:
                files.append(File.generated(config, f"figures/{name}", abs_src_path=str(FIGURES / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Hook of MkDocs: the page's text with every placeholder filled."""
    names: dict[str, Any] = {}
    markdown = RUN_FENCE.sub(lambda fence: with_output(fence[1], fence[2], names), markdown)
    if "<!-- cli -->" in markdown:
        markdown = markdown.replace("<!-- cli -->", cli_reference())
    tables = {
        "fits": fits_table, "constants": constants_table, "answers": first_answers, "leaderboard": as_markdown,
    }  # fmt: skip
    for name, table in tables.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", table())
    markdown = REPORT_PICTURE.sub(r"](\1figures/\2)", markdown)
    markdown = markdown.replace("<details>", DETAILS)
    markdown = PAPERS_NOTEBOOK.sub(r"](../notebooks/\1.md", markdown)
    return NOTEBOOK_LINK.sub(r"](\1.md", markdown)


def with_output(language: str, source: str, names: dict[str, Any]) -> str:
    """A runnable fence, followed by what it prints; Python fences of a page share ``names``."""
    output = run_shell(source) if language == "shell" else run_python(source, names)
    kind = "text" if COLUMNS.search(output) else "output"  # the page's style scrolls the one and wraps the other
    shown = f"```{kind}\n{output.rstrip()}\n```\n" if output.strip() else ""
    return f"```{language}\n{source}```\n\n{shown}"


def run_shell(source: str) -> str:
    """What the ``lscd`` commands of a fence print; comments are left out.

    Raises
    ------
    ValueError
        If a line is no ``lscd`` command, or one fails; names it.
    """
    printed = []
    for line in source.splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program not in ("lscd", ""):
            raise ValueError(f"cannot run {line!r}: allowed are lscd commands")
        if program:
            result = CliRunner().invoke(app, arguments, env={"COLUMNS": WIDTH, "TERM": "dumb"})
            if isinstance(result.exception, NoCompilerError):
                printed.append(NO_COMPILER)
            elif result.exit_code:
                raise ValueError(f"{line!r} fails: {result.output} {result.exception}")
            printed.append(result.stdout)
    return "".join(printed)


def run_python(source: str, names: dict[str, Any]) -> str:
    """What a Python fence prints."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(source, names)
    except NoCompilerError:
        return NO_COMPILER
    return output.getvalue()


def cli_reference() -> str:
    """Every command with its help, arguments and options, as Markdown."""
    root = typer.main.get_command(app)
    return "\n".join(_describe(root, "lscd"))


def _describe(command: Any, path: str) -> list[str]:
    children = getattr(command, "commands", {})
    if children:
        return [line for name, child in children.items() for line in _describe(child, f"{path} {name}")]
    context = click.Context(command)
    lines = [f"## {path}", "", textwrap.dedent(command.help or ""), "", "| option | meaning |", "| --- | --- |"]
    for parameter in command.params:
        spelled = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
        meaning = (parameter.help or "").replace("|", "\\|")
        default = parameter.get_default(context)
        shown = "" if default in (None, "", False) or parameter.required else f" Default: `{default}`."
        lines.append(f"| `{spelled}` | {meaning}{shown} |")
    return [*lines, ""]


def fits_table() -> str:
    """What was fitted on what: memories, kernels, systems, simulator; then each parameter, its range and meaning."""
    files = {
        "memory": (load_calibration(MEMORY_FILE), None),
        "kernel": (kernel_fits(), lambda name: KERNELS[name].Parameters),
        "system": (load_calibration(SYSTEMS_FILE), SYSTEM_RECORDS.get),
        "simulator": (load_calibration(PIPELINE_FILE), lambda name: PipelineParameters),
    }
    fits, parameters = [], []
    for kind, (stored, record) in files.items():
        for name, fit in stored.items():
            error = f"{100 * fit.mean_absolute_error:.1f} %"
            fits.append(f"| {kind} | {name} | {fit.fitted_on} | {fit.rows:,} | {error} |")
            declared = {} if record is None else {f.name: f.metadata for f in fields(record(name))}
            parameters += [_parameter(f"{kind} {name}", *item, declared) for item in fit.parameters.items()]
    for name in unmeasured_kernels():
        fits.append(f"| kernel | {name} | nothing: assumed | 0 | unknown |")
        declared = {f.name: f.metadata | {"value": f.default} for f in fields(KERNELS[name].Parameters)}
        parameters += [
            _parameter(f"kernel {name}, assumed", key, at["value"], declared) for key, at in declared.items()
        ]
    head = ["| kind | name | fitted on | rows | mean error there |", "| --- | --- | --- | --- | --- |"]
    each = ["", "| of | parameter | value | allowed range | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *fits, *each, *parameters])


def _parameter(of: str, name: str, value: float, declared: dict[str, Any]) -> str:
    """A row of the table of parameters."""
    at = declared.get(
        name, {"low": 0.5, "high": 1.0, "meaning": "share of its datasheet's rate that a long read reaches"}
    )
    ends = [word for word in ("low", "high") if np.isclose(value, at[word], rtol=1e-3)]
    limit = f" (at its {ends[0]} end)" if ends and at[ends[0]] else ""
    shown = f"{0.0 if abs(value) < LEAST else value:.4g}"
    return f"| {of} | {name} | {shown}{limit} | {at['low']:.4g} to {at['high']:.4g} | {at['meaning']} |"


def constants_table() -> str:
    """Numbers taken from evidence by hand, each with where it is from."""
    lines = ["| number | value | taken from |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {what} | {value} | {source} |" for what, value, source in BY_HAND)])
