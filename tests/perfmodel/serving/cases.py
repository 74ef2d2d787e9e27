"""The run that many tests ask about."""

from __future__ import annotations

import numpy as np
import typer
from typer.testing import CliRunner

from lscd.e2e import e2e
from lscd.errors import explained
from lscd.plan import plan
from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.serving.group import Group
from perfmodel.serving.systems import System, load_system

A100 = load_gpu("a100-80gb")


FT, FLASH = load_system("fastertransformer"), load_system("flash-llm")


RUN = {"batch": 8, "input_len": 64, "output_len": 512}


def group(model="opt-30b", gpu=A100, system="fastertransformer", p=1, **how):
    """One model on ``p`` GPUs that share its matrices."""
    found = model if isinstance(model, LanguageModel) else load_model(model)
    runs = system if isinstance(system, System) else load_system(system)
    arrays = {name: np.asarray(value, dtype=float) for name, value in how.items() if name != "what_if"}
    return Group(found, gpu, runs, np.asarray(p, dtype=float), **how | arrays)


def invoke(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(e2e)
    app.command()(plan)

    def call():
        with explained():
            app(arguments, standalone_mode=False)

    runner = typer.Typer()
    runner.command()(call)
    return CliRunner().invoke(runner, [])
