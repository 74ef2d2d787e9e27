"""Chapter "How it works": a layer, a tile and a format drawn from their real sizes, and where a model's time goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from lscd.report.exhibit import Chapter, Context, Exhibit, gpu_title, percent
from lscd.report.serving import GPU, LENGTHS, SPARSITY
from lscd.report.serving import TITLES as SYSTEM_TITLES
from lscd.report.tiles import tile, tiled_csl
from perfmodel.catalog import load_gpu, load_model
from perfmodel.catalog.decoder import ATTENTION_OUTPUT, MLP_IN, MLP_OUT, QKV, SelfAttention
from perfmodel.evidence.runs import predict_parts, published_runs
from perfmodel.formats import FORMATS
from perfmodel.plotting import drawings as draw
from perfmodel.roofline import MemoryLevel, intensity, ridge_point
from perfmodel.serving.transformer import Part, layer_matrices
from perfmodel.units import FP16_BYTES, MEGA, MILLI

MODEL, BATCH = "opt-30b", 16
PARTS, DENSE_SYSTEM, WHOLE = "quant-llm-figures", "fastertransformer", "whole run"
SHOWN_SYSTEMS = (DENSE_SYSTEM, "flash-llm")
PARTS_ON_ONE_GPU = [str(part) for part in Part if part is not Part.COMMUNICATION]
PANELS = (
    "Quant-LLM's dense runs, {tokens} tokens: published above, predicted below",
    "Flash-LLM's Fig 13, {tokens} tokens: parts predicted only, none are at hand",
)
RUN = ["model", "gpu", "system", "gpus", "batch", "input_len", "output_len", "sparsity"]
TIMES = {"published_ms": "gpu_s", "err_ms": "err", "predicted_ms": "predicted_gpu_s"}
TITLES = {QKV: "QKV", ATTENTION_OUTPUT: "output projection", MLP_IN: "MLP 1", MLP_OUT: "MLP 2"}


def layer_table(model: str, batch: int, context_tokens: int) -> pd.DataFrame:
    """What one decoding step reads and writes in a layer, in the order of the flow: rows of `draw.decoder_layer`.

    Activations beyond what enters and leaves the products and attention are left out, and so are norms and biases.
    """
    shape = load_model(model).shape
    matrices = {matrix.name: matrix for matrix in layer_matrices(shape)}
    attention = next(part for part in shape.usual.parts if isinstance(part, SelfAttention))
    total = sum(float(matrix.weights) for matrix in matrices.values())
    flow = [_streamed(shape.hidden_size, batch)]
    for name, title in TITLES.items():
        matrix = matrices[name]
        m, k = int(matrix.m), int(matrix.k)
        flow += [_item("weights", title, m, k, share=m * k / total), _streamed(m, batch)]
        if name == QKV:
            keys, columns = attention.cached_values // 2, batch * context_tokens
            cache = _item("kv-cache", "attention: KV cache", keys, columns, copies=2)
            flow += [cache, _streamed(attention.inner, batch)]
    return pd.DataFrame(flow)


def _streamed(rows: int, batch: int) -> dict[str, Any]:
    return _item("activations", "activations", rows, batch)


def _item(kind: str, title: str, rows: int, columns: int, *, copies: int = 1, share: float = np.nan) -> dict[str, Any]:
    size = {"copies": copies, "rows": rows, "columns": columns, "bytes": int(FP16_BYTES * copies * rows * columns)}
    return {"kind": kind, "title": title, **size, "share": share}


def decoder_layer(context: Context) -> Exhibit:
    """A layer's four skinny products and its KV cache, to scale."""
    model = load_model(MODEL)
    layers = model.shape.usual.count
    table = layer_table(MODEL, BATCH, sum(LENGTHS.values()))
    by_kind = table.groupby("kind")["bytes"].sum()
    weights = table[table["kind"] == "weights"]
    held = layers * by_kind["weights"] / FP16_BYTES / model.parameters
    at = intensity(FORMATS["dense"], MemoryLevel.DRAM, weights["rows"], weights["columns"], BATCH, 0.0)
    return Exhibit(
        name="decoder_layer",
        title=f"A decoder layer of {model.name} and its four skinny products",
        finding=(
            f"Four matrices in each of {layers} layers hold {percent(held)} of the weights of {model.name}. A step of "
            f"{BATCH} sequences reads all {by_kind['weights'] / MEGA:,.0f} MB of a layer for "
            f"{by_kind['activations'] / MEGA:.1f} MB of activations: {at.min():.1f} to {at.max():.1f} FLOP a byte, "
            f"where the ridge of an {gpu_title(GPU)} is at {ridge_point(load_gpu(GPU)):.0f}. By the last token the KV "
            f"cache has grown to {percent(by_kind['kv-cache'] / by_kind['weights'], 0)} of the weights' bytes."
        ),
        evidence=(
            f"Counted, not measured: the shape in the catalogue ({model.shape.source}), 16 bits a number, {BATCH} "
            f"sequences of {_plus(LENGTHS.values())} tokens as in Fig 13. Percentages are shares of the layer's "
            "weights. Norms, biases and residuals are left out; they are too small to be seen."
        ),
        sources=("flash-llm-fig13",),
        table=table,
        figure=draw.decoder_layer(table, f"One of {layers} layers of {model.name}, {BATCH} tokens a step"),
    )


def time_by_part(parts: pd.DataFrame) -> pd.DataFrame:
    """Where the time of `MODEL` goes on one GPU, in milliseconds a step: rows of `draw.breakdown`.

    First the runs of ``parts`` (rows of `joined_parts`) whose parts are published, then those of Fig 13, whose totals
    are.
    """
    tables = []
    for title, rows in zip(PANELS, (_published_parts(parts), _predicted_parts()), strict=True):
        assert not rows["fitted"].any()
        lengths = _plus(rows[["input_len", "output_len"]].iloc[0])
        rows = rows.assign(panel=title.format(tokens=lengths)).sort_values(["system", "batch"], kind="stable")
        for name, column in TIMES.items():
            rows[name] = rows[column] / (rows["output_len"] * MILLI)
        tables.append(rows[["panel", "label", "part", *TIMES]])
    return pd.concat(tables, ignore_index=True)


def _plus(lengths: Iterable[int]) -> str:
    """Tokens of prompt and answer: ``64 + 512``."""
    return " + ".join(map(str, lengths))


def _published_parts(parts: pd.DataFrame) -> pd.DataFrame:
    """GPU-seconds of the runs whose parts are published, and of the whole runs."""
    rows = parts[(parts["source"] == PARTS) & (parts["model"] == MODEL) & (parts["system"] == DENSE_SYSTEM)]
    whole = rows.groupby([*RUN, "fitted"], as_index=False)[list(TIMES.values())].sum()
    rows = pd.concat([rows, whole.assign(part=WHOLE)])
    return rows.assign(label="dense 16 bits, batch " + rows["batch"].astype(str))


def _predicted_parts() -> pd.DataFrame:
    """GPU-seconds of Fig 13's runs on one GPU, of whose parts nothing is published."""
    runs = published_runs()
    runs = runs[(runs["model"] == MODEL) & (runs["gpus"] == 1) & runs["fits"] & runs["system"].isin(SHOWN_SYSTEMS)]
    rows = runs.merge(pd.DataFrame({"part": PARTS_ON_ONE_GPU}), how="cross")
    rows["predicted_gpu_s"] = predict_parts(rows)
    rate, spread = runs["tokens_per_gpu_s"], runs["err"]
    whole_s = runs["batch"] * runs["output_len"] / rate
    whole = runs.assign(part=WHOLE, gpu_s=whole_s, err=whole_s * spread / rate)
    predicted = rows.groupby(RUN, as_index=False)["predicted_gpu_s"].sum()
    rows = pd.concat([rows.assign(gpu_s=np.nan, err=np.nan), whole.merge(predicted, on=RUN)])
    return rows.assign(label=rows["system"].map(SYSTEM_TITLES) + ", batch " + rows["batch"].astype(str))


def opt_30b_breakdown(context: Context) -> Exhibit:
    """Where OPT-30B's time goes, as far as it is published, and what is predicted for Fig 13's runs."""
    model = load_model(MODEL)
    table = time_by_part(context.parts)
    above, below = (rows for _, rows in table.groupby("panel", sort=False))
    shares, predicted = _product_shares(above), _product_shares(below)["predicted_ms"]
    errors = [rows.assign(error=rows["predicted_ms"] / rows["published_ms"] - 1) for rows in (above, below)]
    missed = ", ".join(
        f"{part} {rows['error'].min():+.0%} to {rows['error'].max():+.0%}"
        for part, rows in errors[0].groupby("part", sort=False)
    )
    return Exhibit(
        name="opt_30b_breakdown",
        title=f"Where the time goes: {model.name}, as far as published",
        finding=(
            f"Published, the four products take {shares['published_ms']} of a dense run's time on one "
            f"{gpu_title(GPU)} at small batches (predicted {shares['predicted_ms']}); in the runs of Fig 13 it is "
            f"{predicted}, predicted only. Predicted against published: {missed}. Whole runs of Fig 13 are off by "
            f"{percent(errors[1]['error'].abs().mean())} on average."
        ),
        evidence=(
            "Above, the parts that Quant-LLM's figure shows for dense runs, beside a prediction as FasterTransformer; "
            "no fit saw them. Below, the runs of Flash-LLM's Fig 13 on one GPU, its own at "
            f"{percent(SPARSITY, 0)} sparsity: their throughput is at hand, their parts (its Fig 14 may show them) are "
            "not, and those drawn are the model's. Percentages: share of the products. SpInfer's parts on other cards "
            "have a figure of their own."
        ),
        sources=(PARTS, "flash-llm-fig13"),
        table=table,
        figure=draw.breakdown(table, WHOLE),
    )


def _product_shares(rows: pd.DataFrame) -> dict[str, str]:
    """Range over runs of the share that the products have of the time, published and predicted."""
    products, whole = (rows[rows["part"] == part].set_index("label") for part in (Part.MATMUL, WHOLE))
    shares = {name: products[name] / whole[name] for name in ("published_ms", "predicted_ms")}
    return {name: f"{percent(share.min(), 0)} to {percent(share.max(), 0)}" for name, share in shares.items()}


CHAPTER = Chapter(
    "How it works",
    "Drawings whose every size is counted: from the catalogue, from the kernel's constants, from the encoder's arrays.",
    (decoder_layer, opt_30b_breakdown, tile, tiled_csl),
)
