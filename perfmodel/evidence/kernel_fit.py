"""Fit the few free parameters of each kernel model to a stated part of the evidence.

The rule of who is fitted and who is held out stands in one place, `FIT_RULES`. A fit minimises the relative error of
absolute times (never of speed-ups, whose baselines differ by 15 % between sources) with a robust loss. Rows that only
bound the time count when the prediction breaks the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.catalog import load_kernel_times
from perfmodel.catalog.specs import FittedKernel
from perfmodel.evidence.fitting import least_squares_parameters
from perfmodel.evidence.rows import (
    calls,
    flush_s,
    kernel_evidence,
    machines,
    shapes_of,
    with_residency,
)
from perfmodel.evidence.speedups import boxplot_predictor, boxplot_quartiles, boxplots
from perfmodel.kernels import BASELINE, KERNELS, KernelModel, kernel_model
from perfmodel.kernels.fits import kernel_fits, kernel_parameters

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

ROBUST_SCALE = 0.03  # relative error from which a row counts less than quadratically
FITTED_STATUS = ("value", "rough", "lower_bound", "derived")


@dataclass(frozen=True)
class FitRule:
    """Which evidence rows may be fitted, by source, GPU, tokens N and kernel; and their weight together.

    Of a ``relative`` source only the ratios between its rows count: a common factor is left free, because its software
    is slower or faster as a whole than the one the other sources ran. ``own`` marks a user's measurements. Rows with
    their weights in the L2 take part only if ``resident``: where a kernel has hardly any other. ``shapes`` (m, k) and
    ``sparsities`` are all where they are not given, and ``without`` the tokens N that are held out.
    """

    source: str
    gpu: str
    tokens: tuple[int, ...] | None
    weight: float
    kernels: tuple[str, ...] | None = None
    relative: bool = False
    own: bool = False
    resident: bool = False
    shapes: tuple[tuple[int, int], ...] | None = None
    sparsities: tuple[float, ...] | None = None
    without: tuple[int, ...] = ()

    def select(self, evidence: pd.DataFrame) -> NDArray[np.bool_]:
        """Boolean mask of the rows this rule covers."""
        chosen = (evidence["source"] == self.source).to_numpy(copy=True)
        if not chosen.any():  # fits ask every rule about a few rows, thousands of times
            return chosen
        chosen &= (evidence["gpu"] == self.gpu).to_numpy()
        chosen &= evidence["status"].isin(FITTED_STATUS).to_numpy()
        chosen &= (~evidence["resident"] | self.own | self.resident).to_numpy()
        if self.tokens is not None:
            chosen &= evidence["n"].isin(self.tokens).to_numpy()
        if self.without:
            chosen &= ~evidence["n"].isin(self.without).to_numpy()
        if self.kernels is not None:
            chosen &= evidence["kernel"].isin(self.kernels).to_numpy()
        if self.shapes is not None:
            sizes = zip(evidence["m"], evidence["k"], strict=True)
            chosen &= np.array([size in self.shapes for size in sizes], dtype=np.bool_)
        if self.sparsities is not None:
            chosen &= evidence["sparsity"].isin(self.sparsities).to_numpy()
        return chosen

    def describe(self) -> str:
        """Plain words for the stored calibration."""
        tokens = f"N = {', '.join(map(str, self.tokens))}" if self.tokens else "all N"
        tokens += f" but {', '.join(map(str, self.without))}" if self.without else ""
        shapes = ", ".join(f"{m} x {k}" for m, k in self.shapes or ())
        zeros = ", ".join(f"{share:g}" for share in self.sparsities or ())
        parts = (f"{self.source} on {self.gpu}", tokens, shapes, zeros and f"sparsity {zeros}")
        return ", ".join(part for part in parts if part)


Rules = Sequence[FitRule]
# Of the library's times, those of kernels of its own: its dense FP16 products mostly stay a check of the dense model.
LIBRARY_KERNELS = ("fp8", "int8-w8a8", "two-four", "six-eight", "two-four-fp8", "two-four-int8")
FIT_RULES: tuple[FitRule, ...] = (
    FitRule("flash-llm-fig9", "a100-80gb", (8, 32), 1.0),
    FitRule("flash-llm-sweep", "a100-80gb", None, 0.2),
    # Fig 9 never leaves the memory-bound regime; the Tensor-Core efficiency needs rows with many tokens, and the
    # latency of a graph replay needs rows that were replayed.
    FitRule("aiconfigurator-gemm", "a100-80gb", (8, 64, 256, 512), 0.5, kernels=("cublas",), relative=True),
    FitRule("aiconfigurator-gemm", "h100", (8, 64, 256, 512), 0.5, kernels=("cublas",)),
    FitRule("macko-bench", "rtx-4090", (1,), 0.15, kernels=("cublas",)),
    # cuSPARSE takes another path for a single token. Its cycles on this card are the RTX 4090's, not the RTX 3090's.
    FitRule("macko-bench", "rtx-2080-super", (1,), 0.15, kernels=("cublas", "cusparse")),
    FitRule("macko-bench", "rtx-3090", (1,), 0.3, kernels=("cublas", "macko")),
    # Few: it tells what a non-zero costs beside its tokens, and must not outvote the rows with tokens.
    FitRule("macko-sputnik", "rtx-3090", (1,), 0.2, kernels=("sputnik",)),
    FitRule("macko-sputnik", "rtx-2080-super", (1,), 0.2, kernels=("sputnik",)),
    FitRule("quant-llm-figures", "a100-80gb", (8, 32), 1.0),
    # Quantised products inside serving stacks. The best of a library's algorithms, from 64 tokens on, tells what the
    # Tensor Cores reach, and 2:4.
    FitRule("aiconfigurator-quantised", "a100-80gb", (8, 64, 256, 512), 0.5),
    FitRule("aiconfigurator-quantised", "h100", (8, 64, 256, 512), 0.5),
    FitRule("aiconfigurator-quantised", "gb200", (8, 64, 256, 512), 0.5, kernels=("fp8", "fp8-block")),
    FitRule("aiconfigurator-quantised", "gb200", (8, 64, 256), 0.5, kernels=("nvfp4",)),
    # What the Tensor Cores reach shows at thousands of tokens, on boards whose power does not limit them: the A100's
    # and the H100's does, and engines' tables of FP4 end at 512 tokens.
    FitRule("gpu-flops-bench", "rtx-pro-6000", None, 0.1, kernels=("nvfp4",)),
    FitRule("slidesparse", "rtx-4090", (1024, 4096), 0.3, kernels=("cublas",)),
    FitRule("slidesparse", "a100-80gb-pcie", (64, 256, 1024, 4096), 0.3, kernels=LIBRARY_KERNELS, resident=True),
    FitRule("slidesparse", "h100-pcie", (64, 256, 1024, 4096), 0.3, kernels=LIBRARY_KERNELS, resident=True),
    FitRule("slidesparse", "rtx-4090", (64, 256, 1024, 4096), 0.3, kernels=LIBRARY_KERNELS, resident=True),
    # Of a CPU all its threads, at sizes from the second-level cache to memory. One thread, the other shapes and
    # sparsities are held out: what a step costs must carry to them.
    FitRule(
        "cpu-kernels", "xeon-emerald-rapids-2c@2", None, 1.0, sparsities=(0.0, 0.5, 0.7, 0.9),
        shapes=((576, 576), (2048, 2048), (4096, 4096), (14336, 14336)),
    ),
)  # fmt: skip
# SpInfer's A100 times are known only as quartiles of speed-ups; these N are fitted, the others held out.
BOXPLOT_TOKENS = (8, 32)
BOXPLOT_SOURCE, BOXPLOT_GPU = "spinfer-rerun-boxplot", "a100-40gb"
BOXPLOT_BASELINE_SOURCE = "spinfer-rerun-times"


SPRING, SMALLEST_RATIO = 0.02, 1e-3


def rules_with(own: pd.DataFrame, hold_out: Sequence[int] = ()) -> tuple[FitRule, ...]:
    """The rules, and one for each source and GPU of a user's own measurements, without tokens to ``hold_out``."""
    pairs = own[["source", "gpu"]].drop_duplicates().itertuples(index=False, name=None)
    return (*FIT_RULES, *(FitRule(source, gpu, None, 1.0, own=True, without=(*hold_out,)) for source, gpu in pairs))


def own_fitted(fitted: FittedKernel, rows: pd.DataFrame, source: str, gpu: str) -> NDArray[np.bool_]:
    """Which ``rows`` of a user's own measurements of this source and GPU ``fitted`` took in."""
    return ~rows["n"].isin(fitted.held_out).to_numpy() & ((source, gpu) in fitted.own)


def fitted_rows(evidence: pd.DataFrame, rules: Rules = FIT_RULES) -> NDArray[np.bool_]:
    """Mask of the rows that take part in a fit; every other row is held out."""
    chosen = np.zeros(len(evidence), dtype=bool)
    for rule in rules:
        chosen |= rule.select(evidence)
    return chosen


def predictor(
    model: KernelModel, rows: pd.DataFrame, dram_share: Callable[[Any], Array] | None = None
) -> Callable[[Any], Array]:
    """Parameters -> seconds that ``model`` gives each row, as its harness would have measured them.

    ``dram_share`` turns parameters into each row's share of its memory's rate; by default the stored one.
    """
    machine = machines(rows)
    shape = shapes_of(rows)
    call = calls(rows)
    harness_s = flush_s(rows, machine, model.format.bytes_of(shape.m, shape.k, shape.sparsity))

    def seconds(parameters: Any) -> Array:
        at = machine if dram_share is None else machine.with_(dram_share=dram_share(parameters))
        return np.asarray(model.time(at, shape, parameters, call).time_s + harness_s)

    return seconds


def row_weights(rows: pd.DataFrame, rules: Rules = FIT_RULES) -> Array:
    """Weight of each fitted row: the rule's weight shared evenly among its rows."""
    weights = np.zeros(len(rows))
    for rule in rules:
        chosen = rule.select(rows)
        if chosen.any():
            weights[chosen] = rule.weight / chosen.sum()
    return weights


def residuals(
    model: KernelModel, rows: pd.DataFrame, dram_share: Callable[[Any], Array] | None = None
) -> Callable[[Any], Array]:
    """Parameters -> log ratio of prediction to evidence; zero where a row only bounds the time and the bound holds."""
    seconds = predictor(model, rows, dram_share)
    measured_us = rows["time_us"].to_numpy(dtype=np.float64)
    bounded = (rows["status"] == "lower_bound").to_numpy()

    def errors(parameters: Any) -> Array:
        error = np.log(seconds(parameters) * 1e6 / measured_us)
        return np.where(bounded, np.minimum(error, 0.0), error)

    return errors


def fit(
    name: str, evidence: pd.DataFrame, rules: Rules = FIT_RULES, lenders: Mapping[str, FittedKernel] | None = None
) -> FittedKernel:
    """Fit one kernel model to the fitted rows of ``evidence``; where there are none, to quartiles of its speed-up.

    Raises
    ------
    ValueError
        If the evidence holds nothing to fit the kernel on.
    """
    model = kernel_model(name)
    rows = evidence[fitted_rows(evidence, rules) & (evidence["kernel"] == name).to_numpy()]
    rows = rows[~model.at_least(shapes_of(rows))]
    if rows.empty:
        return _fit_boxplot(model, boxplot_baseline(evidence), _start(model, lenders or {}))
    used = [rule for rule in rules if rule.select(rows).any()]
    published = rows[fitted_rows(rows, [rule for rule in used if not rule.own])]
    solved: Any = solve(model, published, used) if len(published) else None
    if any(rule.own for rule in used):
        solved = solve_own(model, rows.drop(published.index), solved)
    error = residuals(model, rows)(solved)
    return FittedKernel(
        parameters=asdict(solved),
        fitted_on="; ".join(rule.describe() for rule in used),
        gpus=sorted(rows["gpu"].unique()),
        rows=len(rows),
        mean_absolute_error=_rounded(np.mean(np.abs(np.expm1(error)))),
        evidence_range=_evidence_range(model, rows),
        own=[(rule.source, rule.gpu) for rule in used if rule.own],
        held_out=sorted({tokens for rule in used if rule.own for tokens in rule.without}),
    )


def _evidence_range(model: KernelModel, rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Smallest and largest m, k, n and sparsity; any sparsity for a dense or quantised kernel."""
    found = {column: (float(rows[column].min()), float(rows[column].max())) for column in ("m", "k", "n", "sparsity")}
    return found if model.format.depends_on_sparsity else found | {"sparsity": (0.0, 1.0)}


def solve(
    model: KernelModel,
    rows: pd.DataFrame,
    rules: Rules = FIT_RULES,
    *,
    start: Any = None,
    dram_share: Callable[[Any], Array] | None = None,
) -> Any:
    """Parameters of ``model`` that fit ``rows`` best, searched from ``start``, the model's own by default."""
    scale = np.sqrt(row_weights(rows, rules) * len(rows))
    relative = [rule.select(rows) for rule in rules if rule.relative]
    errors_at = residuals(model, rows, dram_share)

    def errors(parameters: Any) -> Array:
        error = errors_at(parameters)
        for chosen in relative:
            error[chosen] -= error[chosen].mean() if chosen.any() else 0.0
        return scale * error

    best = start or model.Parameters()
    return least_squares_parameters(best, errors, robust_scale=ROBUST_SCALE, fixed=model.moved_by_own)


def solve_own(model: KernelModel, rows: pd.DataFrame, published: Any = None) -> Any:
    """Parameters that fit a user's own ``rows`` best, held by a weak spring to those that ``published`` rows gave.

    It settles what few rows leave open: a factor of ten in a parameter weighs like `SPRING` of error in each row.
    """
    start = published or model.Parameters()
    errors_at = residuals(model, rows)
    stretched = [f.name for f in fields(start) if published is not None and getattr(start, f.name) > 0]

    def errors(parameters: Any) -> Array:
        ratios = np.array([getattr(parameters, name) / getattr(start, name) for name in stretched])
        spring = SPRING * np.sqrt(len(rows)) * np.log10(np.maximum(ratios, SMALLEST_RATIO))
        return np.concatenate([errors_at(parameters), spring])

    return least_squares_parameters(start, errors, robust_scale=ROBUST_SCALE)


def boxplot_baseline(evidence: pd.DataFrame) -> Any:
    """Parameters of the dense model that fit the box plots' own cuBLAS: the nine times printed beside them."""
    rows = evidence[(evidence["source"] == BOXPLOT_BASELINE_SOURCE) & (evidence["kernel"] == BASELINE)]
    model = KERNELS[BASELINE]
    errors = residuals(model, rows)
    return least_squares_parameters(model.Parameters(), errors, robust_scale=ROBUST_SCALE, fixed=model.moved_by_own)


def _start(model: KernelModel, fitted: Mapping[str, FittedKernel]) -> Any:
    """Where a fit starts: the model's own parameters, but what it borrows."""
    return model.Parameters(**(fitted[model.borrows].parameters if model.borrows else {}))


def _fitted_boxes(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Box plots that kernels without times of their own are fitted to."""
    return ((rows["source"] == BOXPLOT_SOURCE) & rows["n"].isin(BOXPLOT_TOKENS)).to_numpy()


def fitted_speedups(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """True for rows of `perfmodel.evidence.speedups.published_speedups` that a fit of their kernel has seen."""
    boxed = [name for name, fit in kernel_fits().items() if fit.gpus == [BOXPLOT_GPU]]
    return _fitted_boxes(rows) & rows["kernel"].isin(boxed).to_numpy()


def _fit_boxplot(model: KernelModel, dense_parameters: Any, start: Any) -> FittedKernel:
    """Fit to published quartiles of the speed-up over cuBLAS, whose parameters there ``dense_parameters`` are.

    What ``model`` borrows from another kernel keeps its value in ``start``.
    """
    fixed = tuple(field.name for field in fields(kernel_model(model.borrows).Parameters)) if model.borrows else ()
    table = boxplots()
    table = table[_fitted_boxes(table) & (table["kernel"] == model.name)]
    if table.empty:
        raise ValueError(f"no evidence to fit kernel {model.name!r} on")
    predicted, published = boxplot_predictor(model, BOXPLOT_GPU, table, dense_parameters), boxplot_quartiles(table)

    def errors(parameters: Any) -> Array:
        return np.log(published / predicted(parameters))

    solved = least_squares_parameters(start, errors, robust_scale=ROBUST_SCALE, fixed=fixed)
    sizes = (3584.0, 49152.0)
    return FittedKernel(
        parameters=asdict(solved),
        fitted_on=f"quartiles of its speed-up over cuBLAS on an A100, N = {', '.join(map(str, BOXPLOT_TOKENS))}",
        gpus=[BOXPLOT_GPU],
        rows=published.size,
        mean_absolute_error=_rounded(np.mean(np.abs(published / predicted(solved) - 1))),
        evidence_range={
            "m": sizes,
            "k": sizes,
            "n": (min(BOXPLOT_TOKENS), max(BOXPLOT_TOKENS)),
            "sparsity": (float(table["sparsity"].min()), float(table["sparsity"].max())),
        },
    )


def _rounded(value: Any, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def fit_all(
    own: pd.DataFrame | None = None, hold_out: Sequence[int] = ()
) -> tuple[dict[str, FittedKernel], pd.DataFrame]:
    """Fit every kernel model of the registry for which there are rows to fit, the dense one first.

    Fits the evidence in ``data/``, and ``own`` measurements in the same schema on top of it if given, but those of the
    tokens N to ``hold_out``.

    Returns
    -------
    dict, DataFrame
        The fits by kernel, and the evidence of ``data/``, to measure their spread on.
    """
    import pandas as pd

    extra = [] if own is None else [with_residency(own)]
    rules = FIT_RULES if own is None else rules_with(own, hold_out)
    dense = fit(BASELINE, pd.concat([with_residency(load_kernel_times()), *extra], ignore_index=True), rules=rules)
    dense_parameters = kernel_parameters(dense, BASELINE)
    published = kernel_evidence(dense_parameters)
    evidence = pd.concat([published, *extra], ignore_index=True)
    names = [name for name in fitted_kernels(evidence, rules) if name != BASELINE]
    fitted = {BASELINE: dense}
    for name in names:
        fitted[name] = fit(name, evidence, rules, fitted)
    return fitted, published


def fitted_kernels(evidence: pd.DataFrame, rules: Rules = FIT_RULES) -> tuple[str, ...]:
    """Kernels to fit: all but those whose parameters are assumed because no row may be fitted."""
    with_rows = set(evidence.loc[fitted_rows(evidence, rules), "kernel"])
    return tuple(name for name, model in KERNELS.items() if not model.assumed or name in with_rows)
