"""Command line of the lab: composes the two packages, and imports them only when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from lscd import (
    accuracy,
    catalogue,
    choose,
    e2e,
    evidence,
    explore,
    generate,
    kernels,
    leaderboard,
    measure,
    plan,
    predict,
    query,
    reproduce,
    serve,
    simulate,
    sweep,
    tradeoff,
    weights,
    worth,
)
from lscd.errors import explained
from lscd.files import Lab
from lscd.report.command import report
from lscd.version import print_and_leave

app = Lab(
    name="lscd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def lab(
    version: Annotated[
        bool, typer.Option("--version", callback=print_and_leave, is_eager=True, help="Print version and commit.")
    ] = False,
) -> None:
    """When, where and by how much does loading LLM weights sparse and computing them dense pay?"""


app.command()(worth.worth)
app.command()(accuracy.accuracy)
app.command()(predict.predict)
app.command()(simulate.simulate)
app.command()(e2e.e2e)
app.command()(serve.serve)
app.command()(plan.plan)
app.command()(tradeoff.tradeoff)
app.command()(choose.choose)
app.command()(report)
app.command()(explore.explore)
app.command()(generate.generate)
app.command()(sweep.sweep)
app.command()(query.query)
app.command()(reproduce.reproduce)
app.command()(measure.measure)
app.command()(catalogue.gpus)
app.command()(catalogue.models)
app.command()(catalogue.formats)
app.command()(evidence.calibrate)
app.command()(evidence.validate)
kernels.app.command()(leaderboard.leaderboard)
app.add_typer(kernels.app, name="kernels")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Entry point of the ``lscd`` command."""
    with explained():
        code = app(standalone_mode=False)
    raise SystemExit(code or 0)
