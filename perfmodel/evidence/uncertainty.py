"""How far may a prediction be off? 90 % intervals from the residuals of rows a fit did not see.

The log error of a prediction has a part of its own kind and, where they apply, two parts for leaving the evidence:

``inside``, ``many``, ``resident``
    products of up to 64 tokens, of more, and such whose weights a warm L2 holds; shapes left out of the fit in turn.
    A fitted GPU with rows enough has an ``inside`` of its own (``at_home``). A kernel that few rows show with its
    weights in the L2 borrows the pooled residuals of the others there.
``latency``
    times the share of launch, fill and drain in the time: short products are known less well.
``range``
    outside the evidence's tokens, sizes or sparsities: token counts left out in turn.
``gpu``
    another GPU than the fitted ones: the GPUs no parameter saw; kernels measured on fitted GPUs only borrow the pooled
    residuals of the others.

Each is made from 90 % quantiles of the size of the log error, the last two less what the first already covers, because
they are joined as the root of the sum of squares. A kernel that nobody measured has no errors: its interval is what the
ranges of its assumed parameters span, all at one end together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_device
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.kernel_fit import fitted_rows, residuals, solve
from perfmodel.evidence.rows import Rows, calls, machines, shapes_of
from perfmodel.kernels import BOUNDED, CPU_KERNELS, GPU_KERNELS, KERNELS, Machine, kernel_model
from perfmodel.kernels.fits import MANY_TOKENS, interval, kernel_parameters

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVEL = 0.9
SHAPE_FOLDS = 4
SAMPLE = 300  # rows of a GPU that count, so that each GPU counts alike
FEWEST = 8  # rows that make a quantile worth having
AT_HOME = 40  # rows of one GPU that make a quantile of its own
SMALLEST = 0.02  # no interval is narrower: published times themselves are read off pictures to about 1 %
SHORT = 0.2  # share of latency from which a product counts as short
NORMAL_Q90_OVER_MEAN = 2.06  # 90 % quantile over mean of the size of a normal error
COMPARED = ("value", "assumed-gpu", "derived")


@dataclass(frozen=True)
class Residuals:
    """Log errors of rows, the share of latency in their predicted times, what kind of product they are, and where."""

    error: Array
    latency_share: Array
    many: Mask
    resident: Mask
    gpu: NDArray[np.object_]

    def __getitem__(self, chosen: Mask) -> Residuals:
        return Residuals(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Residuals]) -> Residuals:
        """All parts, one after the other."""
        none = np.zeros(0)
        parts = [cls(none, none, none.astype(bool), none.astype(bool), none.astype(object)), *parts]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def usual(self) -> Residuals:
        """Of products of few tokens, not short, from device memory."""
        return self[~self.many & ~self.resident & (self.latency_share < SHORT)]


@dataclass(frozen=True)
class KernelErrors:
    """Errors of one kernel: of shapes left out of the fit, of token counts left out, on each GPU no parameter saw."""

    inside: Residuals
    beyond: Residuals
    abroad: dict[str, Residuals]


def with_spread(
    fitted: Mapping[str, FittedKernel], evidence: pd.DataFrame, own: pd.DataFrame | None = None
) -> dict[str, FittedKernel]:
    """The same fits with their ``spread`` measured on ``evidence``.

    If a user's ``own`` measurements took part, an interval is at least as wide as their residuals after the fit.
    """
    import msgspec

    errors = kernel_errors(fitted, evidence)
    found = spreads(errors)
    result = {}
    for name, fit in fitted.items():
        mine = quantile(own_errors(name, fit, own))
        at_least = {kind: max(found[name][kind], mine) for kind in ("inside", "many", "resident")}
        spread = {kind: float(f"{value:.4g}") for kind, value in (found[name] | at_least).items()}
        result[name] = msgspec.structs.replace(fit, spread=spread, at_home=at_home(errors[name].inside, mine))
    return result


def at_home(inside: Residuals, at_least: float = 0.0) -> dict[str, float]:
    """Spread of usual products on each GPU that has rows enough, no less than ``at_least``."""
    usual = inside.usual
    of = {gpu: usual.error[usual.gpu == gpu] for gpu in sorted(set(usual.gpu))}
    found = {gpu: max(quantile(error), at_least, SMALLEST) for gpu, error in of.items() if len(error) >= AT_HOME}
    return {gpu: float(f"{value:.4g}") for gpu, value in found.items()}


def kernel_errors(fitted: Mapping[str, FittedKernel], evidence: pd.DataFrame) -> dict[str, KernelErrors]:
    """Errors of every kernel that fits exist for, each row predicted without having been fitted."""
    return {
        name: KernelErrors(*left_out_errors(name, evidence, fit), transfer_errors(name, fit, evidence))
        for name, fit in fitted.items()
    }


def spreads(errors: Mapping[str, KernelErrors], without: str | None = None) -> dict[str, dict[str, float]]:
    """Spread of each kernel by kind, from the errors of all; ``without`` is a GPU key whose rows take no part."""
    abroad = {
        name: [rows for of in _by_one_name(name, errors) for gpu, rows in of.abroad.items() if gpu != without]
        for name in errors
    }
    # A kernel of which for several tokens only a bound is known errs elsewhere in ways that say nothing of the others,
    # and kernels of CPUs say nothing of those of GPUs.
    pools = [[name for name in errors if name not in BOUNDED and name in kind] for kind in (GPU_KERNELS, CPU_KERNELS)]
    elsewhere = [Residuals.joined([rows for name in pool for rows in abroad[name]]).usual.error for pool in pools]
    in_l2 = [_sampled_in_l2([rows for name in pool for rows in (errors[name].inside, *abroad[name])]) for pool in pools]
    result = {}
    for name, of in errors.items():
        foreign, kind = Residuals.joined(abroad[name]), int(name in CPU_KERNELS)
        spread = _kinds(of.inside, foreign, in_l2[kind])
        usual = foreign.usual.error
        spread["range"] = _beyond(quantile(of.beyond.error), spread["inside"])
        spread["gpu"] = _beyond(quantile(usual if len(usual) >= FEWEST else elsewhere[kind]), spread["inside"])
        result[name] = spread
    return result


def _by_one_name(name: str, errors: Mapping[str, KernelErrors]) -> list[KernelErrors]:
    """Errors of kernel ``name``, and of the variant that some sources call by this name."""
    names = (name, kernel_model(name).slower_variant or name)
    return [errors[x] for x in dict.fromkeys(names) if x in errors]


def _sampled_in_l2(parts: list[Residuals]) -> Array:
    """Log errors of products with their weights in the L2, at most `SAMPLE` of each part."""
    errors, generator = [rows.error[rows.resident] for rows in parts], np.random.default_rng(0)
    chosen = [generator.choice(error, min(SAMPLE, len(error)), replace=False) for error in errors]
    return np.concatenate([np.zeros(0), *chosen])


def _kinds(inside: Residuals, foreign: Residuals, in_l2: Array) -> dict[str, float]:
    """Spread of each kind of product: many tokens and weights in the L2 where it is worse, at home or on other GPUs.

    ``in_l2`` are the errors of all kernels on weights in the L2, for those that have too few of their own.
    """
    usual = inside.usual.error if len(inside.usual.error) >= FEWEST else inside.error
    found = {"inside": max(quantile(usual), SMALLEST)}
    for kind, borrowed in (("many", np.zeros(0)), ("resident", in_l2)):
        parts = [rows.error[getattr(rows, kind)] for rows in (inside, foreign)]
        own = [error for error in parts if len(error) >= FEWEST]
        found[kind] = max([found["inside"], *(quantile(error) for error in own or [borrowed])])
    short = Residuals.joined([inside, foreign])
    short = short[(short.latency_share >= SHORT) & ~short.many & ~short.resident]
    excess = np.maximum(np.abs(short.error) - found["inside"], 0) / np.maximum(short.latency_share, SHORT)
    return found | {"latency": quantile(excess)}


def _beyond(quantile_beyond: float, inside: float) -> float:
    """What must join ``inside``, as the root of the sum of squares, to give the quantile beyond; never nothing."""
    return max(float(np.sqrt(max(quantile_beyond**2 - inside**2, 0.0))), SMALLEST)


def own_errors(name: str, fit: FittedKernel, own: pd.DataFrame | None) -> Array:
    """Log errors left on a user's own rows of kernel ``name``; none if there are none."""
    rows = None if own is None else own[own["kernel"] == name]
    if rows is None or rows.empty:
        return np.zeros(0)
    return residuals(kernel_model(name), rows)(kernel_parameters(fit, name))


def quantile(errors: Array) -> float:
    """The 90 % quantile of the size of log errors, with conformal prediction's correction for few rows; 0 of none."""
    if not len(errors):
        return 0.0
    level = min(1.0, LEVEL * (len(errors) + 1) / len(errors))
    return float(np.quantile(np.abs(errors), level))


def transfer_errors(name: str, fit: FittedKernel, evidence: pd.DataFrame) -> dict[str, Residuals]:
    """Residuals on each GPU (by key) that no parameter saw; of each at most `SAMPLE` rows."""
    rows = evidence[(evidence["kernel"] == name) & evidence["status"].isin(COMPARED)]
    rows = rows[~rows["gpu"].isin(fit.gpus)]
    parameters = kernel_parameters(fit, name)
    groups = {str(gpu): group.sample(min(SAMPLE, len(group)), random_state=0) for gpu, group in rows.groupby("gpu")}
    return {gpu: _residuals(name, group, parameters) for gpu, group in groups.items()}


def _residuals(name: str, rows: pd.DataFrame, parameters: object) -> Residuals:
    model, shape = kernel_model(name), shapes_of(rows)
    share = model.time(machines(rows), shape, parameters, calls(rows)).latency_share
    known = ~model.at_least(shape)
    return Residuals(
        residuals(model, rows)(parameters),
        share,
        shape.n > MANY_TOKENS,
        rows["resident"].to_numpy(dtype=bool),
        rows["gpu"].to_numpy(dtype=object),
    )[known]


def left_out_errors(name: str, evidence: pd.DataFrame, fit: FittedKernel) -> tuple[Residuals, Residuals]:
    """Residuals of shapes, and of token counts, left out of the fit in turn.

    A kernel fitted to quartiles has their own error only, taken for a normal one.
    """
    rows = evidence[evidence["kernel"] == name]
    rows = rows[_fitted_wherever_held(rows)]
    rows = rows[~kernel_model(name).at_least(shapes_of(rows))]
    if rows.empty:
        error = np.full(FEWEST, fit.mean_absolute_error * NORMAL_Q90_OVER_MEAN)
        no, nowhere = np.zeros(FEWEST, dtype=bool), np.full(FEWEST, "", dtype=object)
        return Residuals(error, 0 * error, no, no, nowhere), Residuals(2 * error, 0 * error, no, no, nowhere)
    return _left_out_in_turn(name, Rows(rows))


@lru_cache(maxsize=2 * len(KERNELS))  # every table and page of errors asks for the same fits, some hundreds of them
def _left_out_in_turn(name: str, fitted: Rows) -> tuple[Residuals, Residuals]:
    """`left_out_errors` of a kernel with rows of its own."""
    rows = fitted.table
    shapes = rows[["m", "k"]].apply(tuple, axis=1).astype("category").cat.codes.to_numpy()
    folds = np.random.default_rng(0).permutation(shapes.max() + 1)[shapes] % SHAPE_FOLDS
    inside = _cross_errors(name, rows, folds)
    tokens = rows["n"].to_numpy()
    if len(np.unique(tokens)) == 1:
        return inside, replace(inside, error=2 * inside.error)
    return inside, _cross_errors(name, rows, tokens).usual


def _fitted_wherever_held(evidence: pd.DataFrame) -> Mask:
    """Rows that are fitted, and those that would be, were their weights not in the L2."""
    return fitted_rows(evidence.assign(resident=False))


def _cross_errors(name: str, rows: pd.DataFrame, folds: NDArray[np.int64]) -> Residuals:
    """Residuals of each fold predicted from the others; rows that only bound the time are not scored."""
    model, fitted = kernel_model(name), fitted_rows(rows)
    errors = []
    for fold in np.unique(folds):
        test = rows[(folds == fold) & (rows["status"] != "lower_bound").to_numpy()]
        if not test.empty:
            errors.append(_residuals(name, test, solve(model, rows[(folds != fold) & fitted])))
    return Residuals.joined(errors)


def coverage(joined: pd.DataFrame, fitted: Mapping[str, FittedKernel]) -> pd.DataFrame:
    """Share of held-out rows inside their interval, and how wide it is, per kernel and kind of extrapolation.

    On another GPU the interval is set without any row of that GPU, of whichever kernel (leave one GPU out).

    Returns
    -------
    pandas.DataFrame
        ``kernel, gpu, where, rows, covered, width``; ``where`` is "inside" or "another GPU", ``width`` the median of
        upper over lower end. Products with their weights in the L2 are groups of their own, "in L2".
    """
    import msgspec
    import pandas as pd

    errors = kernel_errors(fitted, joined)
    left_out = {gpu: spreads(errors, without=gpu) for gpu in {gpu for of in errors.values() for gpu in of.abroad}}
    found = []
    stated = joined["status"].isin(COMPARED) & ~joined["fitted"] & ~joined["at_least"]
    stated &= ~(joined["resident"] & _fitted_wherever_held(joined))  # these made the spread of their kind
    rows = joined[stated & joined["kernel"].isin(list(fitted))]
    for (kernel, gpu, resident), group in rows.groupby(["kernel", "gpu", "resident"]):
        name, fit = str(kernel), fitted[str(kernel)]
        foreign = gpu not in fit.gpus
        if foreign:
            fit = msgspec.structs.replace(fit, spread=left_out[str(gpu)][name])
        model, machine = kernel_model(name), Machine.of(load_device(str(gpu)))
        shape, call = shapes_of(group), calls(group)
        result = model.time(machine, shape, kernel_parameters(fit, name), call)
        low, high = interval(model, {**fitted, name: fit}, str(gpu), machine, shape, call, result)
        measured = result.time_s / (1 + group["error"])  # as the model would have it without the harness's own time
        inside = (low <= measured) & (measured <= high)
        where = ("another GPU" if foreign else "inside") + (", in L2" if resident else "")
        found.append((kernel, gpu, where, len(group), inside.mean(), float(np.median(high / low))))
    return pd.DataFrame(found, columns=["kernel", "gpu", "where", "rows", "covered", "width"])
