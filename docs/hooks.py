"""Fills the documentation at build time, so that no number and no option in it can be out of date.

Three placeholders: a fence marked ``run`` gets the output of its commands or code behind it; ``<!-- cli -->`` becomes
the reference of every command; ``<!-- fits -->`` the table of fitted parameters. A command that fails fails the build.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import textwrap
from dataclasses import fields
from typing import Any

import click
import typer
from typer.testing import CliRunner

from lscd.cli import app
from perfmodel.kernels import KERNELS, KernelModel
from perfmodel.kernels.fits import kernel_fits, unmeasured_kernels

RUN_FENCE = re.compile(r"```(shell|python) run\n(.*?)```\n", flags=re.DOTALL)
NOTEBOOK_LINK = re.compile(r"\]\((\w+)\.ipynb")  # notebooks link each other; here they are pages
WIDTH = "110"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Hook of MkDocs: the page's text with every placeholder filled."""
    names: dict[str, Any] = {}
    markdown = RUN_FENCE.sub(lambda fence: with_output(fence[1], fence[2], names), markdown)
    if "<!-- cli -->" in markdown:
        markdown = markdown.replace("<!-- cli -->", cli_reference())
    if "<!-- fits -->" in markdown:
        markdown = markdown.replace("<!-- fits -->", fits_table())
    return NOTEBOOK_LINK.sub(r"](\1.md", markdown)


def with_output(language: str, source: str, names: dict[str, Any]) -> str:
    """A runnable fence, followed by what it prints; Python fences of a page share ``names``."""
    output = run_shell(source) if language == "shell" else run_python(source, names)
    shown = f"```text\n{output.rstrip()}\n```\n" if output.strip() else ""
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
            if result.exit_code:
                raise ValueError(f"{line!r} fails: {result.output} {result.exception}")
            printed.append(result.stdout)
    return "".join(printed)


def run_python(source: str, names: dict[str, Any]) -> str:
    """What a Python fence prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(source, names)
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
    """Fitted parameters of the kernel models, with what they were fitted on, as Markdown."""
    lines = ["| kernel | parameters | fitted on | rows | mean error there |", "| --- | --- | --- | --- | --- |"]
    for name, fit in kernel_fits().items():
        values = ", ".join(f"{key} {value:.4g}" for key, value in fit.parameters.items())
        lines.append(f"| {name} | {values} | {fit.fitted_on} | {fit.rows} | {100 * fit.mean_absolute_error:.1f} % |")
    lines += [
        f"| {name} | {_assumed(KERNELS[name])} | nothing: assumed | 0 | unknown |" for name in unmeasured_kernels()
    ]
    return "\n".join(lines)


def _assumed(model: KernelModel) -> str:
    """Assumed parameters of a kernel with their ranges."""
    return ", ".join(
        f"{f.name} {f.default:.4g} ({f.metadata['low']:.4g} to {f.metadata['high']:.4g})"
        for f in fields(model.Parameters)
    )
