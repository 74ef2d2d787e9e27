"""The run that many tests ask about."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from lscd import serving as commands
from lscd.errors import explained
from perfmodel.catalog import load_gpu
from perfmodel.serving.systems import load_system

A100 = load_gpu("a100-80gb")


FT, FLASH = load_system("fastertransformer"), load_system("flash-llm")


RUN = {"batch": 8, "input_len": 64, "output_len": 512}


def invoke(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(commands.e2e)
    app.command()(commands.plan)

    def call():
        with explained():
            app(arguments, standalone_mode=False)

    runner = typer.Typer()
    runner.command()(call)
    return CliRunner().invoke(runner, [])
