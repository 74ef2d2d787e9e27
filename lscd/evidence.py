"""`lscd calibrate` and `lscd validate`: fit the models, and say how far they are from the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lscd.errors import InputError, refuse_idle, writable, written_whole
from lscd.own_rows import Own, fittable, judged, read_own, without_model, without_words
from lscd.printing import headline, print_table, say

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.catalog.specs import FittedKernel


def calibrate(
    context: typer.Context,
    own: Own = None,
    out: Annotated[
        Path | None, typer.Option(writable=True, dir_okay=False, help="Where to write the fit; needed with --with.")
    ] = None,
    hold_out: Annotated[
        list[int] | None,
        typer.Option("--hold-out", help="Tokens N whose rows of --with no fit sees, to be judged by; repeatable."),
    ] = None,
    simulator: Annotated[bool, typer.Option("--simulator", help="Fit the simulator again too: two minutes.")] = False,
) -> None:
    """Fit the free parameters of the kernel models and of the systems, and store them with their evidence."""
    from perfmodel.catalog import CALIBRATION_FILE, data_directory, load_calibration, load_kernel_times
    from perfmodel.evidence.kernel_fit import fit_all
    from perfmodel.evidence.memory_fit import fit_memory
    from perfmodel.evidence.rows import with_residency
    from perfmodel.evidence.uncertainty import with_spread
    from perfmodel.kernels.fits import unmeasured_kernels
    from perfmodel.kernels.limits import MEMORY_FILE

    if own is not None and out is None:
        raise InputError("--with needs --out FILE, so that the built-in calibration stays what the evidence gives")
    if out is not None:
        refuse_idle(context, "with --out, where the kernels alone are fitted anew", "simulator")
    else:
        _check_built_in()
    if own is None:
        refuse_idle(context, "without --with", "hold_out")
    mine = None if own is None else fittable(own, hold_out or [])
    if out is None:
        # What memories sustain holds for every kernel, so it is stored before one is fitted.
        _store(fit_memory(with_residency(load_kernel_times())), data_directory() / MEMORY_FILE)
    fitted, published = fit_all(mine, hold_out or [])
    fitted = with_spread(fitted, published, mine)
    _store(fitted, out or data_directory() / CALIBRATION_FILE)
    _name_without_evidence(unmeasured_kernels(fitted))
    if mine is not None and hold_out:
        _print_held_out(mine, fitted, hold_out)
    if out is not None:
        print(f"use it with LSCD_CALIBRATION={out}")
        return

    from perfmodel.evidence import systems_fit
    from perfmodel.serving import collectives

    # Each stands on what was stored before: parts of a run on the kernels, hosts on the parts, spreads on the hosts.
    path, known = data_directory() / collectives.CALIBRATION_FILE, dict(load_calibration(collectives.CALIBRATION_FILE))
    for stage in (systems_fit.fit_parts, systems_fit.fit_hosts, systems_fit.fit_systems):
        known |= stage()
        _store(known, path)
    if simulator:
        from perfmodel.evidence import pipeline_fit
        from perfmodel.pipeline.parameters import PIPELINE_FILE

        _store(pipeline_fit.fit_all(load_kernel_times()), data_directory() / PIPELINE_FILE)


def _check_built_in() -> None:
    """Refuse to write the built-in fits where they are an installed package's, or read-only."""
    from perfmodel.catalog import CALIBRATION_FILE, data_directory
    from perfmodel.catalog.files import INSTALLED
    from perfmodel.kernels.limits import MEMORY_FILE
    from perfmodel.pipeline.parameters import PIPELINE_FILE
    from perfmodel.serving import collectives

    home = data_directory()
    if home == INSTALLED:
        raise InputError(f"the built-in fits in {home} belong to an installed package; give --out FILE for your own")
    for name in (CALIBRATION_FILE, MEMORY_FILE, PIPELINE_FILE, collectives.CALIBRATION_FILE):
        writable(home / name)


def _name_without_evidence(kernels: Sequence[str]) -> None:
    if kernels:
        print(f"no evidence: {', '.join(kernels)}; parameters assumed within ranges, which the intervals span")


def _store(fitted: dict[str, FittedKernel], path: Path) -> None:
    import msgspec

    with written_whole(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(fitted), indent=2) + b"\n")
    print(f"wrote {path}:")
    for name, entry in fitted.items():
        values = ", ".join(f"{key} {value:g}" for key, value in entry.parameters.items())
        print(f"{name}: {entry.mean_absolute_error:.1%} mean error on {entry.rows} rows; {values}")


def _print_held_out(mine: pd.DataFrame, fitted: dict[str, FittedKernel], hold_out: Sequence[int]) -> None:
    """Error of each fitted kernel on the rows that no fit saw."""
    from perfmodel.evidence.validation import error_statistics, join_predictions

    tokens = ", ".join(map(str, sorted(set(hold_out))))
    joined = join_predictions(mine[mine["n"].isin(hold_out)], fitted)
    for row in error_statistics(joined[~joined["at_least"]], ["kernel"]).itertuples(index=False):
        error = f"{row.mean:.1%} mean error on {row.rows} rows, bias {row.bias:+.1%}"
        print(f"{row.kernel}, held out at N = {tokens}: {error}")


GROUPS = ("kernel", "source", "gpu", "n", "sparsity")
RUN_GROUPS = ("source", "model", "gpus", "system")


def validate(
    own: Own = None,
    by: Annotated[str, typer.Option(help=f"Groups of rows, of {','.join(GROUPS)}.")] = "kernel,source,gpu",
) -> None:
    """Print the error of every model of kernels and of whole runs: fitted rows, rows held out, or your own rows."""
    from perfmodel.evidence.run_spread import judged_runs
    from perfmodel.evidence.validation import join_predictions

    groups = [name.strip() for name in by.split(",")]
    if not set(groups) <= set(GROUPS) or len(set(groups)) < len(groups):
        raise InputError(f"--by is {by!r}, allowed are names of {', '.join(GROUPS)}, joined by commas")
    if own is not None:
        _validate_own(own, groups)
        return
    joined, runs = join_predictions(), judged_runs()
    _print_summary(joined, runs)
    _print_kernel_errors(joined, groups)
    say("Whole models: error of the time per token.")
    _print_errors(runs, list(RUN_GROUPS))


def _validate_own(path: Path, groups: list[str]) -> None:
    """Errors on a user's rows of modelled kernels; of the others what was measured, beside dense."""
    from lscd.leaderboard import print_own
    from perfmodel.evidence.leaderboard import leaderboard
    from perfmodel.evidence.validation import join_predictions

    table = read_own(path)
    modelled = judged(path, table)
    if len(modelled):
        _print_kernel_errors(join_predictions(modelled), groups)
    if without := without_model(table):
        say(f"{without_words(without)}.")
        places = leaderboard(table)
        print_own(places[places["source"].isin(table["source"]) & places["kernel"].isin(without)])


def _print_kernel_errors(joined: pd.DataFrame, groups: list[str]) -> None:
    from perfmodel.kernels.fits import unmeasured_kernels

    say("Error of the predicted time, predicted / measured - 1; mean and median of its size, bias of its sign.")
    _print_errors(joined, groups)
    _name_without_evidence([name for name in unmeasured_kernels() if name not in set(joined["kernel"])])


def _print_summary(joined: pd.DataFrame, runs: pd.DataFrame) -> None:
    """A line each: every kernel, every source of whole runs, and how often the winner is the right one."""
    from perfmodel.evidence.parts import part_summary
    from perfmodel.evidence.summary import flash_llm_break_evens, kernel_summary, run_summary, verdicts

    headline("Mean error of the time on rows that no fit saw:")
    for kernel, row in kernel_summary(joined).iterrows():
        say(f"{kernel}: {_kernel_words(row)}.")
    for source, row in run_summary(runs).iterrows():
        words = f"{row['mean']:.1%} on {row['rows']} runs, worst {row['worst']} {row['worst_mean']:.1%}"
        say(f"{source}: {words}; {_interval_words(row)}.")
    for part, row in part_summary().iterrows():
        size = f"{row['mean']:.1%} (median {row['median']:.1%}, bias {row['bias']:+.1%}) on {row['rows']:,} rows"
        say(f"{part}: {size} of {row['devices']}, worst {row['worst']} {row['worst_mean']:.1%}.")
    for question, row in verdicts(joined).iterrows():
        say(f"Right winner, {question}: {row['right']:.1%} of {row['cases']:.0f} that differ by more than 5 %.")
    for row in flash_llm_break_evens().itertuples():
        ends = ("not shown" if math.isnan(at) else f"{at:.0%}" for at in (row.published, row.predicted))
        say(f"{row.kernel} pays on {row.gpu}, N = {row.n}, from {next(ends)} by {row.source}, predicted {next(ends)}.")


def _kernel_words(row: pd.Series) -> str:
    worst = "" if row["devices"] == "1 GPU" else f", worst {row['worst']} {row['worst_mean']:.1%}"
    words = f"{row['mean']:.1%} on {row['rows']:,} rows of {row['devices']}{worst}"
    if row["l2_rows"]:
        words += f"; with weights in the L2 {row['l2_mean']:.1%} on {row['l2_rows']:,}"
    return words if math.isnan(row["covered"]) else f"{words}; {_interval_words(row)}"


def _interval_words(row: pd.Series) -> str:
    return f"90 % intervals hold {row['covered']:.0%}, upper over lower end {row['width']:.2f}"


def _print_errors(joined: pd.DataFrame, groups: list[str]) -> None:
    from perfmodel.evidence.validation import error_statistics, row_kinds

    groups = [*groups, "rows of"]
    joined = joined.assign(**{"rows of": row_kinds(joined)})
    if "at_least" in joined:
        joined = joined[~joined["at_least"]]
    numbers = ("rows", "mean", "median", "worst", "bias", "rank")
    rows = [
        (
            *map(str, row[: len(groups)]),
            str(row.rows),
            f"{row.mean:.1%}",
            f"{row.median:.1%}",
            f"{row.worst:+.1%}",
            f"{row.bias:+.1%}",
            "-" if math.isnan(row.rank) else f"{row.rank:.3f}",
        )
        for row in error_statistics(joined, groups).sort_values(groups, kind="stable").itertuples(index=False)
    ]
    print_table((*groups, *numbers), rows, text=groups)
