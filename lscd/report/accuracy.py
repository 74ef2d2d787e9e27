"""Chapter "And accuracy?": speed at equal quality, how far models can be pruned, and each layer its own sparsity."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent
from perfmodel.catalog import load_model
from perfmodel.evidence import accuracy
from perfmodel.evidence.accuracy import UNSTRUCTURED
from perfmodel.evidence.quality_words import POINTS, amount, count_words, lost
from perfmodel.evidence.relatives import family_and_size
from perfmodel.evidence.ways import WAYS
from perfmodel.frontier import DENSE, PRUNING, SIBLING, Best, best, frontier, over_dense, unpublished
from perfmodel.layer_wise import by_layer, compare, profiles
from perfmodel.plotting import frontier as draw

GPUS = ("a100-80gb", "h100", "b200", "rtx-4090")
# Of today with both rounding and pruning published, and the paper's own.
MODELS = ("llama-3.1-8b", "opt-30b", "qwen3-8b")
BUDGETS = (1.0, 2.0)
PERCENT = (5.0, 10.0)  # the same for perplexity
SMALLEST = 1.0  # billions of parameters of models whose reach is shown: smaller ones have little to lose
BATCH = 16
METRICS = (POINTS, "wikitext2-perplexity")
CHANGES = {
    "dense": "dense",
    "rounded": "rounding",
    "pruned": "pruning",
    "pruned and rounded": "both",
    "layers dropped": "dropping layers",
    "smaller": "a smaller model",
}
PROFILES_GPU = "h100"
FAMILY = 3  # models that make a family worth a median


@lru_cache
def _frontier(model: str, gpu: str, metric: str = POINTS) -> pd.DataFrame:
    return frontier(model, gpu, batch=BATCH, metric=metric)


def within_budget(context: Context) -> Exhibit:
    """The fastest way within one and two points, by model and GPU, and the fastest that prunes."""
    rows = []
    for model in MODELS:
        for gpu in GPUS:
            table = _frontier(model, gpu)
            for budget in BUDGETS:
                for kind, ways in (("any", ()), ("prunes", PRUNING)):
                    if (found := best(table, budget, ways)) is not None:
                        rows.append(
                            {"model": model, "gpu": gpu, "budget": budget, "kind": kind} | _columns(found, table)
                        )
    table = pd.DataFrame(rows)
    return Exhibit(
        name="within_budget",
        title="The fastest way that keeps the quality",
        finding=_finding(table),
        evidence=(
            f"Batch {BATCH}, 64 + 512 tokens. x: tokens per GPU-second over dense, each on the fewest GPUs that hold "
            "it, and the 90 % of the prediction; * outside the evidence of its kernel, ~ a tie with dense. Points: "
            "percent of questions answered rightly, means of many tasks (MMLU among them), the median over published "
            "results of that method on the model or, of ways it has none of, its nearest relative. "
            f"{_rests_on()} {unrounded()}"
        ),
        sources=_sources(),
        table=table,
        shown=_shown(table),
    )


def _columns(found: Best, table: pd.DataFrame) -> dict[str, object]:
    gain = over_dense(found.row, table)
    assert gain is not None  # each of MODELS fits dense on each of GPUS
    dense_gpus = int(table.loc[table["way"] == DENSE, "gpus"].iloc[0])
    kept = ("method", "gpus", "loss", "loss_low", "loss_high", "results", "usd_low", "usd_high", "extrapolated")
    return {
        "way": found.title,
        "change": draw.change_of(found.row["way"]),
        **dict(zip(("speedup", "low", "high"), gain, strict=True)),
        **{name: found.row[name] for name in kept},
        "sources": len(str(found.row["sources"]).split()),
        "dense_gpus": dense_gpus,
        "ties": ", ".join(found.ties),
    }


def _finding(table: pd.DataFrame) -> str:
    strict = table[(table["budget"] == min(BUDGETS)) & (table["kind"] == "any")]
    rounds = strict["model"].isin([model for model in MODELS if not _rounded(model).empty])
    counted = strict["change"].value_counts()
    where = {"rounded": f" of the {rounds.sum()} where what rounding costs is published in points"}
    listed = ", ".join(f"{CHANGES[name]} in {count}{where.get(name, '')}" for name, count in counted.items())
    pruned = table[(table["budget"] == max(BUDGETS)) & (table["kind"] == "prunes")]
    faster = pruned[pruned["low"] > 1]
    gains = f", by {faster['speedup'].min():.1f} to {faster['speedup'].max():.1f} times" if len(faster) else ""
    return (
        f"Within {min(BUDGETS):g} point the fastest in {len(strict)} cases is {listed}. Pruning has a published "
        f"result within {max(BUDGETS):g} points in {len(pruned)} of {len(strict)} (of {_models(pruned)}), and is "
        f"clearly faster than dense in {len(faster)} of these{gains}. Per dollar: {_cheapest(strict)}."
    )


def _cheapest(strict: pd.DataFrame) -> str:
    """Each model's cheapest GPU and way within the smallest budget, by the middle of its prices."""
    middle = (strict["usd_low"] * strict["usd_high"]) ** 0.5
    rows = strict.loc[middle.groupby(strict["model"], sort=False).idxmin()]
    return "; ".join(
        f"{row.model} {gpu_title(row.gpu)} {row.way}, ${row.usd_low:.2f} to {row.usd_high:.2f} a million tokens"
        for row in rows.itertuples()
    )


def _models(rows: pd.DataFrame) -> str:
    return " and ".join(dict.fromkeys(rows["model"])) or "no model"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """A row a model and GPU, the cells in words."""
    cells = table.assign(cell=[_cell(row) for row in table.to_dict("records")])
    named = {("any", 1.0): "within 1 point", ("any", 2.0): "within 2 points", ("prunes", 2.0): "that prunes, 2 points"}
    columns = {}
    for (kind, budget), title in named.items():
        of_kind = cells[(cells["kind"] == kind) & (cells["budget"] == budget)]
        columns[title] = of_kind.set_index(["model", "gpu"])["cell"]
    wide = pd.DataFrame(columns).reindex(pd.MultiIndex.from_product([MODELS, GPUS], names=["model", "gpu"]))
    wide = wide.apply(lambda column: column.fillna(_nothing(wide))).reset_index()
    return wide.assign(gpu=[gpu_title(gpu) for gpu in wide["gpu"]]).rename(columns={"gpu": "GPU"})


def _nothing(wide: pd.DataFrame) -> pd.Series:
    """Why a model has no cell for what prunes: nothing is published, or nothing that keeps the budget."""
    pruned = {way.pattern for way in WAYS if way.prunes}
    known = [accuracy.results(model)["pattern"].isin(pruned).any() for model, _ in wide.index]
    return pd.Series(np.where(known, "none keeps it", "nothing published"), index=wide.index)


def _cell(row: dict[str, Any]) -> str:
    if row["way"] == DENSE:
        return "dense"
    marks = "*" * bool(row["extrapolated"]) + " ~" * (DENSE in row["ties"].split(", "))
    gpus = "" if row["gpus"] == row["dense_gpus"] else f" on {row['gpus']:.0f} GPUs, dense on {row['dense_gpus']}"
    kept = lost(row["loss"], POINTS)
    count = count_words(int(row["results"]), row["sources"])
    interval = f" ({row['low']:.2f}-{row['high']:.2f})" if row["high"] > row["low"] else ""
    how = "" if row["method"] == row["way"].lower() else f" ({row['method']})"
    return f"{row['way']}{how}: {row['speedup']:.2f}x{marks}{interval}{gpus}; {kept}, {count}"


def _rests_on() -> str:
    counts = []
    for model in MODELS:
        rows = accuracy.results(model)
        counts.append(f"{model}: {len(rows)} results in {rows['source'].nunique()} sources")
    return "; ".join(counts) + "."


def _rounded(model: str) -> pd.DataFrame:
    return accuracy.results(model, pattern=accuracy.WHOLE)


def unrounded() -> str:
    """Of which models nobody has published in points what rounding costs, and what is known by perplexity."""
    said = []
    for model in MODELS:
        table = _frontier(model, GPUS[0], METRICS[1])
        found = best(table, PERCENT[-1], tuple(way.title for way in WAYS if not way.prunes))
        if _rounded(model).empty and found is not None:
            known, gain = lost(found.row["loss"], METRICS[1]), over_dense(found.row, table)
            speed = f"{gain[0]:.2f}x on {gpu_title(GPUS[0])}, " if gain else ""
            said.append(
                f"Of {model} nobody has published in points what rounding costs, so rounding takes no part there; by "
                f"perplexity it is known: {found.title} ({found.row['method']}) {speed}{known}."
            )
    return " ".join(said)


def _sources() -> tuple[str, ...]:
    return tuple(sorted({key for model in MODELS for key in accuracy.results(model)["source"]}))


def _frontier_of(model: str, metric: str = POINTS) -> Exhibit:
    tables = {gpu: _frontier(model, gpu, metric) for gpu in GPUS}
    known = accuracy.variants(model, metric)
    drawn = tables[GPUS[0]]
    modelled = int(drawn.loc[drawn["way"] != SIBLING, "results"].notna().sum())
    every = pd.concat([table.assign(gpu=gpu) for gpu, table in tables.items()], ignore_index=True)
    silent = sorted(set(every.loc[every["gap"] == unpublished(metric), "way"]))
    budgets, right = (BUDGETS, draw.RIGHT) if metric == POINTS else (PERCENT, 2 * draw.RIGHT)
    far = int((known["loss"] > right).sum())
    bests = {gpu: best(table, budgets[-1]) for gpu, table in tables.items()}
    named = {gpu: _columns(found, tables[gpu]) for gpu, found in bests.items() if found is not None}
    listed = "; ".join(f"{gpu_title(gpu)} {one['way']} {one['speedup']:.2f}x" for gpu, one in named.items())
    return Exhibit(
        name=f"frontier_{model.split('-')[0]}{'' if metric == POINTS else '_perplexity'}",
        title=f"Quality against speed: {load_model(model).name}{'' if metric == POINTS else ', by perplexity'}",
        finding=f"Fastest within {amount(budgets[-1], metric)}: {listed}.",
        evidence=(
            f"{int(known['results'].sum())} published results of {len(known)} ways to compress it; {far} lose more "
            f"than {amount(right, metric)} and are not drawn, {len(known) - modelled} have no kernel model. "
            "Filled: retrained, or only rounded; hollow: pruned in one shot. Bars: 90 % of the speed over dense, "
            "dotted outside the kernel's evidence, and the spread of what is published. Steps: the fastest at each "
            "loss; rings: within each budget. At right, "
            f"in grey, {unpublished(metric)}: {', '.join(silent) or 'none'}. Batch {BATCH}."
        ),
        sources=tuple(sorted(set(" ".join(drawn["sources"].dropna()).split()))),
        table=every,
        figure=draw.frontiers(
            {gpu_title(gpu): table for gpu, table in tables.items()}, budgets, draw.LOSSES[metric], right
        ),
    )


def frontier_llama(context: Context) -> Exhibit:
    """Llama 3.1 8B on four GPUs."""
    return _frontier_of(MODELS[0])


def frontier_opt(context: Context) -> Exhibit:
    """OPT-30B, the paper's model, on four GPUs."""
    return _frontier_of(MODELS[1])


def frontier_opt_perplexity(context: Context) -> Exhibit:
    """OPT-30B once more, by perplexity: what rounding costs it is published in no other way."""
    return _frontier_of(MODELS[1], METRICS[1])


def frontier_qwen(context: Context) -> Exhibit:
    """Qwen3-8B on four GPUs."""
    return _frontier_of(MODELS[2])


def pruning_reach(context: Context) -> Exhibit:
    """How far zeros anywhere go, by family and size."""
    table = reach_table()
    shot = table[(table["metric"] == POINTS) & ~table["retrained"]]
    half = shot[shot["sparsity"] >= 0.5 - accuracy.SAME]
    results = accuracy.published()
    results = results[(results["pattern"] == UNSTRUCTURED) & (results["weights"] == "fp16")]
    kept = {metric: f"within {amount(accuracy.tolerance_of(metric), metric)}" for metric in METRICS}
    tolerance = amount(accuracy.tolerance_of(POINTS), POINTS)
    return Exhibit(
        name="pruning_reach",
        title="How far can it be pruned?",
        finding=(
            f"In one shot {len(half)} of {len(shot)} models reach half their weights within {tolerance} "
            f"({', '.join(half['model']) or 'none'}; {(half['sources'] == 1).sum()} of these on one source); the "
            f"median model reaches {percent(shot['sparsity'].median(), 0)}. Median by family: {_by_family(shot)}."
        ),
        evidence=(
            f"{len(results)} published results of {results['model'].nunique()} models; drawn from {SMALLEST:g} billion "
            "parameters on. The method of each that reaches furthest, the median over its sources (bar: all of them), "
            "interpolated between their points: a limit below the lowest sparsity tried is a cautious one. Arrows: "
            "still kept at the highest sparsity tried. Results in one shot and retrained may be of different tasks."
        ),
        sources=tuple(sorted(set(results["source"]))),
        table=table,
        figure=draw.pruning_reach(table, kept),
    )


def _by_family(shot: pd.DataFrame) -> str:
    """Median reach of the families with several models."""
    groups = shot.groupby("family", sort=False)["sparsity"]
    median = groups.median()[groups.size() >= FAMILY].sort_values(ascending=False)
    return ", ".join(f"{name} {percent(value, 0)}" for name, value in median.items())


def reach_table() -> pd.DataFrame:
    """`accuracy.feasible` of every model with results of zeros anywhere, by family and size."""
    rows = []
    table = accuracy.published()
    models = table.loc[(table["pattern"] == UNSTRUCTURED) & (table["weights"] == "fp16"), "model"].unique()
    sized = {name: family_and_size(name) for name in models}
    large = [name for name, (_, size) in sized.items() if size is not None and size >= SMALLEST]
    for model in sorted(large, key=lambda name: (sized[name][0], sized[name][1] or 0.0)):
        for metric in METRICS:
            for retrained in (False, True):
                limit = accuracy.feasible(model, retrained=retrained, metric=metric)
                if limit is not None and limit.model == model:
                    told = ("sparsity", "low", "high", "beyond", "method", "results")
                    own = {name: getattr(limit, name) for name in told} | {"sources": len(limit.sources)}
                    asked = {"model": model, "family": sized[model][0], "metric": metric, "retrained": retrained}
                    rows.append(asked | own)
    return pd.DataFrame(rows)


def layer_wise(context: Context) -> Exhibit:
    """Published profiles beside the same zeros in every layer."""
    rows = profiles()
    compared = compare(PROFILES_GPU, BATCH)
    change = compared["step_layer_wise_s"] / compared["step_uniform_s"] - 1
    known = compared.dropna(subset=["layer_wise"]).drop_duplicates("profile")
    listed = "; ".join(
        f"{row.model} at {percent(row.sparsity, 0)}: {row.uniform:.1f} to {row.layer_wise:.1f}"
        for row in known.itertuples()
    )
    better = int((known["layer_wise"] < known["uniform"]).sum())
    dense = f"{known['dense'].min():.1f} to {known['dense'].max():.1f}"
    return Exhibit(
        name="layer_wise",
        title="Each layer its own sparsity",
        finding=(
            f"With the same zeros, a sparsity of its own for each layer lowers perplexity in {better} of {len(known)} "
            f"cases ({listed}; dense {dense}) and lengthens a step by {abs(100 * change.min()):.1f} to "
            f"{100 * change.max():.1f} %."
        ),
        evidence=(
            f"{rows['profile'].nunique()} profiles, the last the census of a checkpoint pruned here. Perplexities: of "
            "either from one table, pruned in one shot, on WikiText-2 (SmolLM2: help texts), missing for "
            f"{rows['profile'].nunique() - len(known)} profiles. Times: predicted on "
            f"{gpu_title(PROFILES_GPU)}, batch {BATCH}, for {', '.join(compared['kernel'].unique())}, each matrix at "
            "its own sparsity against all at the mean."
        ),
        sources=tuple(sorted({*rows["source"], "dlp-readme", "evopress-paper"})),
        table=compared,
        figure=draw.layer_wise(by_layer(), compared),
    )


CHAPTER = Chapter(
    "And accuracy?",
    "What published results say compression costs, beside the speed it buys. Nothing published, nothing said.",
    (
        within_budget,
        frontier_llama,
        frontier_opt,
        frontier_opt_perplexity,
        frontier_qwen,
        pruning_reach,
        layer_wise,
    ),
    question="And accuracy?",
    headline="within_budget",
)
