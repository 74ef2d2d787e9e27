"""Chapter "Fitted parameters": what was taken from evidence, and from how much of it."""

from __future__ import annotations

import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit

SHOWN = {"kernel": "kernel", "parameter": "parameter", "value": "value", "fitted_on": "fitted on", "rows": "rows"}


def fitted_parameters(context: Context) -> Exhibit:
    """Every free parameter of every kernel model, and the rows that it was fitted on."""
    table = pd.DataFrame(
        {"kernel": kernel, "parameter": name, "value": value, "fitted_on": fit.fitted_on, "rows": fit.rows}
        for kernel, fit in context.calibration.items()
        for name, value in fit.parameters.items()
    )
    counts = table.groupby("kernel", sort=False).size()
    fitted = table.drop_duplicates("kernel")["rows"].sum()
    return Exhibit(
        name="fitted_parameters",
        title="Every number that was fitted",
        finding=(
            f"{len(table)} parameters of {len(counts)} fits, at most {counts.max()} each, rest on {fitted:,} rows of "
            "evidence."
        ),
        evidence="Everything else is a datasheet's, or follows from how a kernel works.",
        sources=(),
        table=table,
        shown=_shown(table),
    )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with what all rows of a kernel share said once."""
    shown = table.assign(value=table["value"].map("{:.4g}".format), rows=table["rows"].map("{:,}".format))
    repeated = table.duplicated("kernel")
    for column in ("kernel", "fitted_on", "rows"):
        shown[column] = shown[column].mask(repeated, "")
    return shown.rename(columns=SHOWN)


CHAPTER = Chapter("Fitted parameters", "What the models take from evidence.", (fitted_parameters,))
